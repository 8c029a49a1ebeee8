"""Drawings in the page's own colours, and small: what matplotlib repeats is said once."""

from __future__ import annotations

import re
import zlib
from collections import Counter

# Each is drawn in a colour that nothing else uses, then replaced by the page's variable (with a fallback that is
# readable on white and on black, for a figure that is opened by itself).
INK, MUTED, FAINT = "#010101", "#020202", "#030303"
COLOURS = {"lossless": "#040404", "lossy": "#050505", "inconclusive": "#060606"}
THEME = {
    INK: "var(--ink, #808080)",
    MUTED: "var(--muted, #808080)",
    FAINT: "var(--faint, #80808040)",
    COLOURS["lossless"]: "var(--good, #2e9e5b)",
    COLOURS["lossy"]: "var(--bad, #dd4a48)",
    COLOURS["inconclusive"]: "var(--unsure, #c98a1b)",
}


def themed(text: str) -> str:
    """An SVG whose black is the page's ink and whose white is the page itself, in a third of the bytes or so less.

    Coordinates are in hundredths of a point; ids that nothing refers to go, and a style that comes three times or more
    becomes a class, named by its own text so that drawings on one page agree. What is themed already stays as it is.
    """
    text = re.sub(r"\b(fill|stroke): #(?:[0-3][0-9a-f]){3}\b", rf"\1: {THEME[INK]}", text)
    text = re.sub(r"\b(fill|stroke): #ffffff\b", r"\1: var(--page, #ffffff)", text)
    # What has no colour is black in SVG, on whatever page: text, and faces that were drawn black.
    if "<svg style=" not in text:
        text = text.replace("<svg ", f'<svg style="fill: {THEME[INK]}" ', 1)
    text = re.sub(r' (?:d|x|y|points|transform|width|height)="[^"]*"', _rounded, text)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(r"<!--.*?-->|<g>\s*</g>", "", text, flags=re.S)
    return re.sub(r"\n\s+", "\n", _classed(text))


def _classed(text: str) -> str:
    counts = Counter(re.findall(r' style="([^"]*)"', text))
    names = {style: f"s{zlib.crc32(style.encode()):x}" for style, times in counts.items() if times > 2}
    if not names:
        return text
    rules = "".join(f".{name}{{{style}}}\n" for style, name in sorted(names.items()))
    text = re.sub(
        r' style="([^"]*)"', lambda found: f' class="{names[found[1]]}"' if found[1] in names else found[0], text
    )
    return re.sub(r"(<svg [^>]*>)", lambda found: f"{found[1]}\n<style>\n{rules}</style>", text, count=1)


def _rounded(attribute: re.Match[str]) -> str:
    text = re.sub(r"-?\d+\.\d{3,}(?!\d*e)", lambda number: f"{float(number[0]):.2f}", attribute[0])
    return re.sub(r"\s+", " ", text)[:-1].rstrip() + '"' if text.startswith(" d=") else text
