"""Lossless rules that were called lossy, in public or by a naive test: one file a control, as for a verifier."""
