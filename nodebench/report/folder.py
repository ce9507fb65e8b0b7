"""A report's folder: whether its files may be overwritten, and which figures it shows."""

from __future__ import annotations

import re
from pathlib import Path

from nodebench.errors import StoreError, SweepError, shown
from nodebench.sweep import Sweep, load
from nodebench.sweep.points import points

FIRST = "results.csv"
"""The file that is written first, so that an interrupted report is recognised as a report."""

SHOWN_SWEEP = "sweep.yaml"
"""The sweep that the report shows."""

TABLES = ("evaluations.csv", "batches.csv", "gradients.csv", "timings.csv", "machines.csv")
WRITTEN = ("README.md", "report.html", SHOWN_SWEEP, "figures", *TABLES)


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


def require_no_loss(sweep: Sweep, folder: Path) -> None:
    """Refuses a sweep changed by `--set` whose report would lose what the folder's report shows.

    Raises:
        StoreError: if that report has a trial or an evaluation point that the sweep does not have.
    """
    file = folder / SHOWN_SWEEP
    if sweep.made.changed and file.exists() and not _has_all_of(file, sweep):
        changes = " ".join(f"--set {shown(text)}" for text in sweep.made.changed)
        raise StoreError(
            f"{sweep.name} {changes}: the report in `{folder}` shows trials or evaluation points "
            f"that this sweep does not have. Give it another name (`--set name={sweep.name}-2`), "
            "write no report (`run --no-report`) or one elsewhere (`report --out`), or replace "
            "this one (`run --replace`)"
        )


def _has_all_of(file: Path, sweep: Sweep) -> bool:
    """Whether a sweep has all trials and evaluation points of the one in a file."""
    try:
        other = load(file)
    except SweepError:  # written by another release
        return False
    planned = {trial.id for trial in sweep.trials}
    return all(
        trial.id in planned
        and set(points(trial, other.evaluate)) <= set(points(trial, sweep.evaluate))
        for trial in other.trials
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
