"""Measurements of what decoding costs, device by device."""
