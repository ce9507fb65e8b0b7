"""A figure as the page embeds it: in the format that takes the fewest bytes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

DOTS_A_PIXEL = 150 / 96
"""Of a PNG, in pixels of a page, at which it is as large as its SVG."""

COLORS = 256
"""Of a picture; those of a figure are then off by some levels of 255 at most."""


@dataclass(frozen=True)
class Picture:
    """A figure's MIME type and bytes, and its width on the page if these do not say it."""

    kind: str
    content: bytes
    width: int | None = None


def smallest(figure: Path) -> Picture:
    """A figure as its SVG, or as lossless WebP from the PNG next to it.

    An SVG with thousands of points, as of curves over all epochs, is larger than its picture.
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
