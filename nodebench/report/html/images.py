"""A figure as the page embeds it: in the format that takes the fewest bytes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

DOTS_A_PIXEL = 150 / 96
"""Dots of a PNG per pixel of the page, at which the PNG is as large as its SVG."""

COLORS = 256
"""Colours in a picture's palette, which shifts the colours of a figure by a few levels of 255."""


@dataclass(frozen=True)
class Picture:
    """A figure's MIME type and bytes, and its width on the page if the bytes do not define it."""

    kind: str
    content: bytes
    width: int | None = None


def smallest(figure: Path) -> Picture:
    """A figure as its SVG, or as lossless WebP from the PNG next to it.

    An SVG with thousands of points, such as curves over all epochs, is larger than its picture.
    """
    drawn = Picture("image/svg+xml", figure.read_bytes())
    picture = figure.with_suffix(".png")
    if not picture.is_file():
        return drawn
    with Image.open(picture) as image:
        few = image.convert("RGB").quantize(COLORS, Image.Quantize.MAXCOVERAGE)
    content = io.BytesIO()
    few.convert("RGB").save(content, "WEBP", lossless=True, quality=60, method=4)
    painted = Picture("image/webp", content.getvalue(), round(few.width / DOTS_A_PIXEL))
    return min(drawn, painted, key=lambda each: len(each.content))
