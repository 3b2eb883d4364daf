"""What the table and the charts have in common: how results are told."""

import json

NAMES = {"default": "default suite", "aes128": "AES-128-GCM",
         "chacha": "ChaCha20-Poly1305"}


def read(path):
    with open(path) as f:
        return json.load(f)


def number(value):
    """Three digits; four or more where there are thousands."""
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def title_of(figure, with_unit=True):
    words = figure["title"]
    for short, name in NAMES.items():
        words = words.replace(" " + short, ", " + name)
    unit = figure["unit"] if with_unit else ""
    return f"{words}, {unit}" if unit else words
