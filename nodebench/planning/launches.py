"""The files that sweeps were launched from, so that files with one name do not replace each other.

A sweep's name is also that of its report, its copy in the store and its experiment in MLflow.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from nodebench.errors import StoreError, SweepError, shown
from nodebench.store import Store
from nodebench.store.merge import Merged
from nodebench.store.rows import Row
from nodebench.sweep import Sweep, load
from nodebench.sweep.loading import load_origin
from nodebench.sweep.safe_yaml import parse_file
from nodebench.sweep.sweep import Origin


@dataclass(frozen=True)
class Imported:
    """The result of importing an archive."""

    sweep: Sweep
    merged: Merged
    is_sweep_kept: bool
    """False if the store has a different sweep of this name, which stays."""


def remember(sweep: Sweep, store: Store) -> None:
    """Records a launch; a sweep changed by `--set` does not replace the copy of its file."""
    record, text = store.sweep(sweep.name), sweep.text
    if sweep.made.changed and record.file.exists():
        text = record.file.read_text(encoding="utf-8")
    planned = {trial.id: sweep.label(trial) for trial in sweep.trials}
    record.keep(text, planned, _files(sweep, store))


def adopt(sweep: Sweep, store: Store, *, replace: bool = False) -> bool:
    """Stores an imported sweep, so that it can be found by name; False if another one stays.

    A different sweep of the same name stays, unless `replace` is set.
    """
    record, text = store.sweep(sweep.name), sweep.text
    if record.file.exists() and not replace:
        text = record.file.read_text(encoding="utf-8")
    record.keep(text, {trial.id: sweep.label(trial) for trial in sweep.trials})
    return text == sweep.text


def archived_sweep(file: Path, name: str) -> Sweep:
    """The sweep in an archive, which must not include another file and must have this name.

    Raises:
        StoreError: if that is not so, or the sweep cannot be read.
    """
    try:
        if "include" in parse_file(file):
            raise StoreError("the archive's `sweep.yaml` includes another file")
        sweep = load(file)
    except SweepError as error:
        faults = "; ".join(map(str, error.faults))
        raise StoreError(f"the archive's `sweep.yaml` cannot be read here: {faults}") from error
    if sweep.name != name:
        raise StoreError(f"the archive's sweep is {shown(sweep.name)}, and should be {shown(name)}")
    return sweep


def require_name(sweep: Sweep, store: Store, *, replace: bool = False) -> None:
    """Rejects a sweep that has the name of another file, unless it is to `replace` that file.

    Raises:
        StoreError: if the last launch of this name was from another file that still exists and has
            this name, or if a file of the user's lies where the store writes.
    """
    record = store.sweep(sweep.name)
    record.require_copy()
    files = record.launches()
    if replace or not files or _is_stores(sweep, store) or _is_copy(sweep, store):
        return
    last = _origin(files[-1], store)
    if last.file != sweep.origin.file and _has_name(last, sweep.name):
        raise StoreError(
            f"the sweep `{sweep.name}` was last launched from `{last.file}`, but this file is "
            f"`{sweep.origin.file}`: the two would share a report and an experiment. Give one of "
            "them another `name:`, or replace the other one with `run --replace`"
        )


def last_launch(name: str, store: Store) -> Path | None:
    """The file that a sweep of this name was last launched from."""
    files = store.sweep(name).launches()
    return Path(_origin(files[-1], store).file) if files else None


def launched_files(store: Store) -> list[tuple[str, Origin]]:
    """Every existing file that a sweep was launched from, with the sweep's name."""
    records = store.sweep_records()
    found = [(record.name, _origin(row, store)) for record in records for row in record.launches()]
    return [(name, origin) for name, origin in found if Path(origin.file).exists()]


def _files(sweep: Sweep, store: Store) -> list[Row]:
    """The files that a sweep was launched from, including this one unless nodebench wrote it."""
    this, files = _row(sweep.origin, store), store.sweep(sweep.name).launches()
    others = [row for row in files if row["file"] != this["file"]]
    if _is_stores(sweep, store) or _is_reports(sweep.origin):
        return files
    return [this, *files] if others and _is_copy(sweep, store) else [*others, this]


def _is_copy(sweep: Sweep, store: Store) -> bool:
    """Whether a sweep is identical to the last launch of this name."""
    kept = store.sweep(sweep.name).file
    text = load_origin(sweep.origin).text if sweep.made.changed else sweep.text
    return kept.exists() and kept.read_text(encoding="utf-8") == text


def _is_stores(sweep: Sweep, store: Store) -> bool:
    return Path(sweep.origin.file) == store.sweep(sweep.name).file


def _is_reports(origin: Origin) -> bool:
    """Whether a file is the copy in a report's folder."""
    file = Path(origin.file)
    return file.name == "sweep.yaml" and file.with_name("results.csv").exists()


def _has_name(origin: Origin, name: str) -> bool:
    """Whether a file exists and still has a sweep of this name; a damaged one may have."""
    if not Path(origin.file).exists():
        return False
    try:
        return load_origin(origin).name == name
    except (SweepError, OSError):
        return True


def _row(origin: Origin, store: Store) -> Row:
    """A launch as it is stored: the path is relative to the store's parent, if it lies inside."""
    file, root = Path(origin.file), store.root.parent
    path = file.relative_to(root) if file.is_relative_to(root) else file
    return asdict(origin) | {"file": str(path)}


def _origin(row: Row, store: Store) -> Origin:
    file = store.root.parent / str(row["file"])
    return Origin(str(file), row.get("size", "full"), tuple(row.get("renamed", ())))
