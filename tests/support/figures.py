"""Figures that are built but neither laid out nor rendered, most of what a small report takes.

Every test has them so, unless it asks for `rendered_figures`.
"""

import base64
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from nodebench.report.figures import processes

RENDERING = {
    name: getattr(Figure, name)
    for name in ("savefig", "draw_without_rendering", "get_tightbbox", "tight_layout")
}
"""What `report/figures/style.py:save` and seaborn call, most of whose time is the layout's."""
EMPTY = {
    ".svg": b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>',
    ".png": base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mP4DwABAQEAHLCMmQAAAABJRU5ErkJggg=="
    ),
}
"""Pictures of one pixel."""
HELPERS = processes.helpers


def leave_unrendered() -> None:
    """From now on this process writes an empty picture for a figure."""
    Figure.savefig = _write_empty
    Figure.draw_without_rendering = lambda _figure: None
    Figure.tight_layout = lambda _figure, **_how: None
    Figure.get_tightbbox = lambda _figure: Bbox.unit()
    processes.helpers = contextlib.nullcontext  # they would render


@contextlib.contextmanager
def rendered_figures(*endings: str) -> Iterator[None]:
    """For tests of what figures show, of their files, or of labels that could fail in them.

    Where endings are named, other files are empty pictures still.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, method in RENDERING.items():
            patch.setattr(Figure, name, method)
        if endings:
            patch.setattr(Figure, "savefig", _written_as(endings))
        yield


@contextlib.contextmanager
def helpers(count: int) -> Iterator[None]:
    """For tests with helpers, which render the figures that they draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "cpu_count", lambda: count + 1)
        with HELPERS():
            yield


def _written_as(endings: Sequence[str]) -> Callable[..., None]:
    def write(figure: Figure, file: Path, **how: Any) -> None:
        if file.suffix in endings:
            RENDERING["savefig"](figure, file, **how)
        else:
            _write_empty(figure, file)

    return write


def _write_empty(_figure: Figure, file: Path, **_how: Any) -> None:
    file.write_bytes(EMPTY[file.suffix])
