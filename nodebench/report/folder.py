"""A report's folder: whether its files may be overwritten, and which figures it shows."""

from __future__ import annotations

import re
from pathlib import Path

from nodebench.errors import StoreError

FIRST = "results.csv"
"""The file that is written first, so that an interrupted report is recognised as a report."""

TABLES = ("evaluations.csv", "batches.csv", "gradients.csv", "timings.csv", "machines.csv")
WRITTEN = ("README.md", "report.html", "sweep.yaml", "figures", *TABLES)


def require_report_folder(folder: Path) -> None:
    """Refuses a folder in which a report would overwrite files that no report wrote.

    Raises:
        StoreError: if it contains such a file, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise StoreError(
            f"`{folder}` is a file, but a report needs a folder: move the file, or pass `--out`"
        )
    if _is_table(folder / FIRST):
        return
    theirs = [name for name in (FIRST, *WRITTEN) if (folder / name).exists()]
    if theirs:
        raise StoreError(
            f"`{folder}` has {', '.join(f'`{name}`' for name in theirs)}, which nodebench did not "
            "write and a report would overwrite: move them, or pass `report --out`"
        )


def _is_table(file: Path) -> bool:
    """Whether a file is a report's table of results."""
    if not file.is_file():
        return False
    with file.open("rb") as content:
        return content.read(8) == b"id,cell,"


SHOWN_FIGURE = re.compile(r"\(figures/([\w.-]+)\.svg\)")


def shown_figures(page: Path) -> set[str]:
    """The names of the figures that a page shows; empty if there is no page."""
    return set(SHOWN_FIGURE.findall(page.read_text(encoding="utf-8"))) if page.exists() else set()
