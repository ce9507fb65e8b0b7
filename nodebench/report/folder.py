"""A report's folder: whether its files may be overwritten, and which figures it shows."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from nodebench.errors import StoreError, SweepError, counted, shortened, shown
from nodebench.store import Store
from nodebench.sweep import Sweep, load
from nodebench.sweep.points import points
from nodebench.sweep.safe_yaml import parse_file

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


def require_results(sweep: Sweep, store: Store) -> None:
    """Refuses a report without content.

    Raises:
        StoreError: if no trial of the sweep has a result or a completed epoch in the store.
    """
    if not store.has_progress(trial.id for trial in sweep.trials):
        raise StoreError(
            f"{sweep.name}: nothing has been trained, so there is nothing to report. `nodebench "
            f"run` trains its {counted(len(sweep.trials), 'trial')}; if they were trained in "
            f"another store than `{store.root}`, set NODEBENCH_RUNS to it"
        )


def require_no_loss(sweep: Sweep, folder: Path) -> None:
    """Refuses a sweep whose report would lose what the folder's report shows, because of `--set`.

    Either this sweep was changed, or that which the report shows, and the same changes would keep
    it. What a sweep file as it is written no longer has may leave a report.

    Raises:
        StoreError: if that report has a trial or an evaluation point that the sweep does not have,
            or its sweep file cannot be read.
    """
    if not all((folder / file).exists() for file in (FIRST, SHOWN_SWEEP)):
        return
    earlier = _changes(folder / SHOWN_SWEEP)
    lost = _lost(sweep, folder) if sweep.made.changed or earlier else ""
    if lost and (sweep.made.changed or lost != _lost_with(earlier, sweep, folder)):
        written = f"; it was written with{_options(earlier)}" if earlier else ""
        repeat = "Repeat these changes, give" if earlier else "Give"
        raise StoreError(
            f"{sweep.name}{_options(sweep.made.changed)}: {lost}{written}. {repeat} it another "
            f"name (`--set name={sweep.name}-2`), write no report (`run --no-report`) or one "
            "elsewhere (`report --out`), or replace this one (`run --replace`)"
        )


def _changes(file: Path) -> list[str]:
    """The changes by `--set` with which a report's sweep was made; empty if it cannot be read."""
    try:
        made = parse_file(file).get("made")
    except SweepError:
        return []
    changed = made.get("changed") if isinstance(made, dict) else None
    return [str(text) for text in changed] if isinstance(changed, list) else []


def _lost_with(changes: Sequence[str], sweep: Sweep, folder: Path) -> str:
    """What the report would lose by the sweep's file with these changes."""
    try:
        return _lost(load(Path(sweep.origin.file), changes, sweep.origin.size), folder)
    except SweepError:  # the file as it is now cannot be changed like this
        return _lost(sweep, folder)


def _options(changes: Iterable[str]) -> str:
    return "".join(f" --set {shown(text)}" for text in changes)


def _lost(sweep: Sweep, folder: Path) -> str:
    """What a folder's report shows and the sweep's would not; empty if there is nothing."""
    with (folder / FIRST).open(encoding="utf-8", newline="") as table:
        listed = {row["id"] for row in csv.DictReader(table)}
    if gone := listed - {trial.id for trial in sweep.trials}:
        return (
            f"the report in `{folder}` shows {counted(len(gone), 'trial')} that this sweep does "
            f"not have ({shortened(sorted(gone))})"
        )
    try:
        other = load(folder / SHOWN_SWEEP)
    except SweepError:  # written by another release
        return f"`{folder / SHOWN_SWEEP}` cannot be read, so what its report shows is not known"
    both = {trial.cell.key: trial for trial in sweep.trials if trial.id in listed}
    if any(set(points(t, other.evaluate)) - set(points(t, sweep.evaluate)) for t in both.values()):
        return f"the report in `{folder}` shows evaluation points that this sweep does not have"
    return ""


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
