"""A figure as the page embeds it: in the format that takes the fewest bytes."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

COLORS = 256
"""Of a picture; those of a figure are then off by some levels of 255 at most."""


def smallest(figure: Path) -> tuple[str, bytes]:
    """MIME type and bytes of a figure: its SVG, or the PNG next to it as lossless WebP.

    An SVG with thousands of points, as of curves over all epochs, is larger than its picture.
    """
    found = {"image/svg+xml": figure.read_bytes()}
    picture = figure.with_suffix(".png")
    if picture.is_file():
        content = io.BytesIO()
        with Image.open(picture) as image:
            few = image.convert("RGB").quantize(COLORS, Image.Quantize.MAXCOVERAGE)
        few.convert("RGB").save(content, "WEBP", lossless=True, quality=60, method=4)
        found["image/webp"] = content.getvalue()
    kind = min(found, key=lambda name: len(found[name]))
    return kind, found[kind]
