"""Finds and deletes files to free disk space: never a result that a sweep plans.

Three kinds of files can be deleted: temporary files of killed processes, and checkpoints that could
not be read; checkpoints of finished trials, which still count as finished without them; and trials
no longer in any known sweep. A sweep is known by its copy in the store, as it was last launched, by
every file that it was launched from and that still exists, or by a file in `sweeps/`.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nodebench.errors import InputError, NodebenchError, StoreError
from nodebench.planning.launches import launched_files
from nodebench.planning.missing import is_missing
from nodebench.planning.options import demand_of
from nodebench.store import Result, Store, TrialFolder
from nodebench.store.lock import holder
from nodebench.store.scratch import abandoned, elsewhere, new_folder
from nodebench.sweep import Sweep, load
from nodebench.sweep.file import SizeName

Kind = Literal["leftovers", "checkpoints", "orphans"]

KINDS: dict[Kind, str] = {
    "leftovers": "left by killed processes",
    "checkpoints": "checkpoints of finished trials",
    "orphans": "trials no longer in any sweep",
}
"""The kinds, in the order in which they are deleted if space is short."""

SCRATCH_KINDS = ("ray", "merge", "import", "gone")
"""The kinds of folders in a store that belong to one process: see `store/scratch.py`."""

PARTIAL_S = 3600.0
"""A half-written file counts as a leftover from this age on."""


@dataclass(frozen=True)
class Item:
    """One thing that can be deleted. A trial's checkpoints and its other files are two items."""

    kind: Kind
    paths: tuple[Path, ...]
    size_bytes: int
    used: float
    """When it was last written to, in seconds since 1970."""
    trial_id: str | None = None
    is_orphans: bool = False
    """Whether it belongs to a trial that no sweep plans any more."""


@dataclass(frozen=True)
class Wish:
    """The items to remove: these kinds (leftovers always), unused for that long, down to a budget.

    With a budget and no kinds, checkpoints are removed: a trial that no sweep plans any more may be
    a result that can no longer be reproduced, and is removed only on request.
    """

    kinds: frozenset[Kind] = frozenset()
    unused_days: float = 0.0
    budget_bytes: int | None = None

    @property
    def allowed(self) -> frozenset[Kind]:
        """The kinds that may be removed, apart from leftovers."""
        if self.kinds or self.budget_bytes is None:
            return self.kinds
        return frozenset[Kind]({"checkpoints"})

    def allows(self, item: Item) -> bool:
        """Whether an item may be removed by its kind."""
        kinds = {"leftovers", *self.allowed}
        return item.kind in kinds or ("orphans" in kinds and item.is_orphans)

    def is_unused(self, item: Item) -> bool:
        """Whether an item has been unused for long enough."""
        return item.used <= time.time() - 86400 * self.unused_days


@dataclass(frozen=True)
class Survey:
    """The store's size without MLflow's files, its removable items, and those to remove."""

    size_bytes: int
    items: list[Item]
    chosen: list[Item]
    unreadable: list[str]
    """Sweeps whose plan is unknown here, so that nothing of theirs is removed."""


def bytes_of(text: str) -> int:
    """The bytes of a size such as `10GB`, `500 MB` or `1.5TB`, in powers of 1000.

    Raises:
        InputError: if it is not a size.
    """
    units = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", text, re.IGNORECASE)
    if found is None:
        raise InputError(f"`{text}` is not a size: write it like 10GB, 500MB or 1.5TB")
    return round(float(found[1]) * units[found[2].upper()])


def survey_store(store: Store, wish: Wish, sweeps: Iterable[Path] = ()) -> Survey:
    """A store's removable items, and those that the wish selects; `sweeps` are more sweep files."""
    plans = _Plans(store, sweeps)
    items = _leftovers(store)
    results = store.results()
    for folder in store.trial_folders():
        if not folder.is_locked():
            items += _of_trial(folder, results.get(folder.path.name), plans)
    size = _size(store.trials_root) + _size(store.sweeps_root)
    size += sum(i.size_bytes for i in items if i.kind == "leftovers" and _is_beside(i, store))
    return Survey(size, items, _chosen(items, wish, size), sorted(plans.unreadable))


def remove(store: Store, items: Iterable[Item]) -> list[Item]:
    """Removes the items that a survey has chosen; returns those that still exist.

    These remain because a process holds their trial by now, or because the system refuses.
    """
    remaining: list[Item] = []
    for item in items:
        with contextlib.suppress(StoreError, OSError):
            _remove(item, store)
        if any(path.exists() for path in item.paths):
            remaining.append(item)
    return remaining


class _Plans:
    """The trials that the known sweeps plan.

    If a sweep cannot be expanded here, or its ids depend on files that are missing here, all trials
    that it ever planned count as planned and in use.
    """

    def __init__(self, store: Store, files: Iterable[Path]):
        self.store = store
        self.planned: set[str] = set()
        self.in_use: set[str] = set()
        """Trials that are not done; a trained one still needs its checkpoint to be evaluated."""
        self.recipes: set[str] = set()
        """The recipes of trials that are not done, and might continue a shorter training."""
        self.unreadable: set[str] = set()
        for record in store.sweep_records():
            if record.file.exists():
                # An override skips the check of conditions, whose trials `--set` may have removed.
                self._add(record.file, [f"name={record.name}"])
            else:
                self.planned |= record.labels().keys()
        for path in files:
            self._add(path, [])
        for name, origin in launched_files(store):
            self._add(Path(origin.file), origin.renamed, name, origin.size)

    def _add(
        self,
        path: Path,
        overrides: Sequence[str],
        name: str | None = None,
        size: SizeName = "full",
    ) -> None:
        """Adds the trials of a file, which may have been launched under another `name`."""
        sweep = None
        with contextlib.suppress(NodebenchError, OSError):
            sweep = load(path, overrides, size)
            self._add_trials(sweep)
        if sweep is None or not all(trial.is_identified for trial in sweep.trials):
            record = self.store.sweep(name or (sweep.name if sweep else path.stem))
            ever = set(record.labels())
            if path.parent == self.store.sweeps_root and not ever:
                ever = self.store.trial_ids()  # any of them may be the sweep's
            self.planned |= ever
            self.in_use |= ever
            self.unreadable.add(name or path.stem)

    def _add_trials(self, sweep: Sweep) -> None:
        demand = demand_of(sweep)
        results = self.store.results(trial.id for trial in sweep.trials)
        for trial in sweep.trials:
            self.planned.add(trial.id)
            if trial.spec.weights is not None:  # may be another trial's checkpoint
                self.in_use.add(Path(trial.spec.weights).resolve().parent.name)
            if is_missing(trial, results.get(trial.id), self.store.folder(trial.id), demand):
                self.in_use.add(trial.id)
                self.recipes.add(trial.recipe_id)


def _of_trial(folder: TrialFolder, result: Result | None, plans: _Plans) -> list[Item]:
    """The removable items of a trial that no process holds."""
    trial_id = folder.path.name
    is_needed = trial_id in plans.in_use or (result is not None and result.recipe in plans.recipes)
    if is_needed:
        return []
    is_orphan, used = trial_id not in plans.planned, _last_used(folder)
    items: list[Item] = []
    checkpoints = folder.checkpoints() if result and result.is_finished else []
    size = sum(map(_size, checkpoints))
    if checkpoints:
        items.append(Item("checkpoints", tuple(checkpoints), size, used, trial_id, is_orphan))
    if is_orphan:
        leftovers = [*folder.partial_files(), *folder.damaged_files()]  # counted there
        rest = _size(folder.path) - size - sum(map(_size, leftovers))
        items.append(Item("orphans", (folder.path,), rest, used, trial_id, is_orphan))
    return items


def _leftovers(store: Store) -> list[Item]:
    """Half-written and damaged files, and the folders of dead processes."""
    files = [*store.root.glob(".*.partial"), *store.sweeps_root.glob(".*.partial")]
    for folder in store.trial_folders():
        if not folder.is_locked():
            files += [*folder.partial_files(), *folder.damaged_files()]
    found = [path for path in files if time.time() - _used(path) > PARTIAL_S]
    for kind in SCRATCH_KINDS:
        found += abandoned(store.root, kind)
    if not _is_in_use(store):
        found += (path for kind in SCRATCH_KINDS for path in elsewhere(store.root, kind))
    return [Item("leftovers", (path,), _size(path), _used(path)) for path in found]


def _is_in_use(store: Store) -> bool:
    """Whether any sweep is being run."""
    return any(map(holder, store.sweep_locks()))


def _chosen(items: list[Item], wish: Wish, size_bytes: int) -> list[Item]:
    """The items to remove: by kind, the least recently used first."""
    found: list[Item] = []
    ranks = list(KINDS)
    for item in sorted(items, key=lambda item: (ranks.index(item.kind), item.used)):
        is_asked = wish.allows(item) and wish.is_unused(item)
        is_too_much = wish.budget_bytes is None or size_bytes > wish.budget_bytes
        if item.kind == "leftovers" or (is_asked and is_too_much):
            found.append(item)
            size_bytes -= item.size_bytes
    return found


def _remove(item: Item, store: Store) -> None:
    if item.trial_id is None:
        for path in item.paths:
            _delete(path)
        return
    trial = store.folder(item.trial_id)
    if not trial.path.exists():
        return
    with trial.locked(0):
        if item.kind == "checkpoints":
            for path in item.paths:
                _delete(path)
            with contextlib.suppress(OSError):  # if the disk is still full
                trial.log("the checkpoint was deleted to free space")
            return
        # Renamed first, so that half a trial is never taken for a whole one.
        gone = trial.path.rename(new_folder(store.root, "gone"))
    _delete(gone)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_beside(item: Item, store: Store) -> bool:
    return item.paths[0].parent == store.root


def _files(path: Path) -> Iterable[Path]:
    return (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else (path,)


def _size(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    return sum(_status(file)[0] for file in _files(path))


def _used(path: Path) -> float:
    """When a file, or the newest in a folder, was last written to."""
    return max((_status(file)[1] for file in _files(path)), default=_status(path)[1])


def _last_used(folder: TrialFolder) -> float:
    """When a trial was last written to; looking at it touches only its lock."""
    stamps = (_status(file)[1] for file in folder.files())
    return max(stamps, default=_status(folder.path)[1])


def _status(path: Path) -> tuple[int, float]:
    """The size and the time of the last change; zeros for a file that is gone by now."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0.0
    return status.st_size, status.st_mtime
