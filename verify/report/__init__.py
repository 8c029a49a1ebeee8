"""Verdicts -> one self-contained HTML page, its Markdown twin, and the JSON that both are made from."""
