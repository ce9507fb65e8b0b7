"""Figures that are built and not rendered, which is most of the time that a small report takes.

Every test has them so, unless it asks for `rendered_figures`.
"""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

RENDER = Figure.savefig
EMPTY = {
    ".svg": b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>',
    ".png": base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mP4DwABAQEAHLCMmQAAAABJRU5ErkJggg=="
    ),
}
"""Pictures of one pixel."""


def leave_unrendered() -> None:
    """From now on this process writes an empty picture for a figure."""

    def write_empty(_figure: Figure, file: Path, **_how: Any) -> None:
        file.write_bytes(EMPTY[file.suffix])

    Figure.savefig = write_empty  # type: ignore[method-assign]


@contextmanager
def rendered_figures() -> Iterator[None]:
    """For tests of what figures show, of their files, or of labels that could fail in them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", RENDER)
        yield
