"""Merges a sweep's trials from another store, such as another machine's or an array job's.

A trial's id covers everything that determines its result, so the same id is the same trial. Trials
missing in this store are copied. If both stores have a trial, the more advanced copy is kept; if
both copies have a final result, the results are compared.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nodebench.errors import StoreError, TrialOutcome
from nodebench.spec.identity import canonical
from nodebench.store.result import Result
from nodebench.store.rows import INCIDENTAL, Row, is_current
from nodebench.store.scratch import scratch
from nodebench.store.store import Store
from nodebench.store.trial_folder import TrialFolder


@dataclass(frozen=True)
class Conflict:
    """A trial with different results in the two stores; ours was kept.

    `metrics` has our value and theirs by name; the first is the one to show.
    """

    trial_id: str
    metrics: dict[str, tuple[Any, Any]]
    ours: Result
    theirs: Result


Done = Literal["copied", "replaced", "extended", "kept", "running"]
"""What was done with a trial: the list of `Merged` that has it."""


@dataclass
class Merged:
    """The result of merging another store, by trial id."""

    copied: list[str] = field(default_factory=list)
    """Trials that were missing in this store."""
    replaced: list[str] = field(default_factory=list)
    """Trials that were more advanced there."""
    extended: list[str] = field(default_factory=list)
    """Trials that were evaluated at more points there."""
    kept: list[str] = field(default_factory=list)
    """Trials that were not more advanced there."""
    running: list[str] = field(default_factory=list)
    """Trials that a process holds, in either store, and that were skipped."""
    conflicts: list[Conflict] = field(default_factory=list)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(each)} {name}" for name, each in vars(self).items() if each)
        return f"<Merged: {counts or 'nothing'}>"


def require_store(folder: Path, into: Store) -> Store:
    """The store in another folder.

    Raises:
        StoreError: if the folder is not a store, or is this store.
    """
    other = Store(folder)
    if other.root == into.root:
        raise StoreError(f"`{folder}` is this store itself: pass another machine's")
    if not other.trials_root.is_dir():
        inner = folder / "runs"
        hint = f" Did you mean `{inner}`?" if Store(inner).trials_root.is_dir() else ""
        raise StoreError(
            f"`{folder}` is not a nodebench store (no `trials/` folder).{hint} Pass another "
            "machine's NODEBENCH_RUNS folder or a copy of it"
        )
    return other


def merge_trials(ids: Iterable[str], other: Store, into: Store) -> Merged:
    """Merges the trials with these ids from another store.

    If it is killed, it leaves only complete trials and resumes when it is called again.

    Raises:
        StoreError: if a file cannot be read or written.
    """
    merged = Merged()
    try:
        with scratch(into.root, "merge") as aside:
            for trial_id in ids:
                theirs, ours = other.folder(trial_id), into.folder(trial_id)
                if theirs.path.is_dir():
                    with theirs.read_locked() as is_free:
                        done = _merge(theirs, ours, aside) if is_free else "running"
                    if isinstance(done, Conflict):
                        merged.conflicts.append(done)
                    else:
                        getattr(merged, done).append(trial_id)
    except OSError as error:
        raise StoreError(f"`{error.filename}` cannot be merged: {error.strerror}") from error
    return merged


def merge_store(ids: Iterable[str], other: Store, into: Store) -> Merged:
    """Like `merge_trials`, but keeps both results of trials that both have, for reports to compare.

    Raises:
        StoreError: if a file cannot be read or written.
    """
    ids = list(ids)
    both = [trial_id for trial_id in ids if into.folder(trial_id).result()]
    # Read before the merge, which may replace our folder, and what it knows of other machines.
    ends = {i: [*into.folder(i).elsewhere(), *_ends(other.folder(i))] for i in both}
    merged = merge_trials(ids, other, into)
    for trial_id in set(both) - set(merged.running):
        ours, theirs = into.folder(trial_id), other.folder(trial_id)
        with contextlib.suppress(StoreError), ours.locked(0):  # another process holds it by now
            for timing in theirs.timings():
                ours.add_timing(timing)
            _keep_elsewhere(ours, ends[trial_id])
    return merged


def _ends(folder: TrialFolder) -> list[Result]:
    """A trial's result in a folder, and its results on other machines that the folder knows."""
    result = folder.result()
    return [*([result] if result and not result.is_error else []), *folder.elsewhere()]


def _keep_elsewhere(ours: TrialFolder, ends: list[Result]) -> None:
    """Keeps the result of each run of a trial once, except that of our own run."""
    own = ours.result()
    others = {_run(end): end for end in ends if own is None or _run(end) != _run(own)}
    if list(others.values()) != ours.elsewhere():
        ours.write_elsewhere(list(others.values()))


def _run(result: Result) -> tuple[object, float, float]:
    """A key that distinguishes the runs of a trial: the last host, the start and the end.

    The start alone is not enough: runs that resume copies of one checkpoint share it.
    """
    host = result.environments[-1].get("host") if result.environments else None
    return host, result.started, result.finished


def _merge(theirs: TrialFolder, ours: TrialFolder, aside: Path) -> Done | Conflict:
    """Merges a trial that no process holds in the other store."""
    if not ours.path.exists():
        return _copy(theirs, ours, aside)
    try:
        with ours.locked(0):
            return _merge_existing(theirs, ours, aside)
    except StoreError:
        return "running"


def _copy(theirs: TrialFolder, ours: TrialFolder, aside: Path) -> Done:
    """Copies a trial via a scratch folder, so that half a trial is never taken for a whole one.

    It is `running` if another process has just begun it here.
    """
    partial = aside / ours.path.name
    partial.mkdir()
    for path in theirs.files():
        shutil.copy2(path, partial / path.name)
    ours.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial.rename(ours.path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return "running"
    return "copied"


def _merge_existing(theirs: TrialFolder, ours: TrialFolder, aside: Path) -> Done | Conflict:
    """Keeps the more advanced copy of a trial that both stores have; compares final results."""
    here, there = _progress(ours), _progress(theirs)
    if _is_further(there, here):
        _replace(theirs, ours, aside)
        return "replaced"
    if here.end is None or there.end is None or not (here.is_final and there.is_final):
        return "kept"
    if metrics := _differences(here.end, there.end):
        return Conflict(ours.path.name, metrics, here.end, there.end)
    for timing in theirs.timings():
        ours.add_timing(timing)
    if points := _united(ours.evaluations(), theirs.evaluations()):
        ours.write_evaluations(points)
        return "extended"
    return "kept"


NO_CHECKPOINT = -1
"""Less than 0, the epochs of a checkpoint that was written within the first epoch."""


@dataclass(frozen=True)
class _Progress:
    """A trial's progress: its result, unless it crashed or has none, and its resumable epochs."""

    end: Result | None
    resumable: int

    @property
    def reached(self) -> int:
        """The epochs reached; while a trial is retried, it keeps its last result."""
        return max(self.resumable, self.end.epoch if self.end else NO_CHECKPOINT)

    @property
    def is_final(self) -> bool:
        """Whether the result is final: no other machine, limit or search would change it."""
        unfinal = (TrialOutcome.OUT_OF_MEMORY, TrialOutcome.STOPPED)
        return self.end is not None and self.end.limit is None and self.end.outcome not in unfinal


def _progress(folder: TrialFolder) -> _Progress:
    result = folder.result()
    resumable = len(folder.history()) if folder.checkpoints() else NO_CHECKPOINT
    return _Progress(result if result and not result.is_error else None, resumable)


def _is_further(one: _Progress, other: _Progress) -> bool:
    """Whether `one` is more advanced than `other`, so that nothing is lost without the other.

    A finished trial is more advanced than an unfinished one. Otherwise, a checkpoint or result is
    never replaced by one of fewer epochs, nor a checkpoint by a result without one: in such a pair,
    neither copy is more advanced.
    """
    if other.is_final:
        return False
    if one.end is not None and one.is_final:
        return one.end.is_finished or one.reached >= other.reached
    return one.resumable >= other.resumable and _rank(one, other) > _rank(other, one)


def _rank(one: _Progress, other: _Progress) -> tuple[int, bool, float, int]:
    """The order of two copies that are not final: by epochs, result, its limit, checkpoint."""
    a, b = one.end, other.end
    # Limits in minutes and in evaluations cannot be compared.
    limit = a.limit if a and b and a.outcome == b.outcome else None
    return one.reached, a is not None, limit or 0.0, one.resumable


def _replace(theirs: TrialFolder, ours: TrialFolder, aside: Path) -> None:
    """Replaces our files by theirs.

    Their result comes last, when none of our files is left: if the process is killed earlier, the
    trial resumes from a checkpoint, and never has their result with our weights.
    """
    files, result = theirs.files(), theirs.result_file
    for path in files:
        shutil.copy2(path, aside / path.name)
    for path in files:
        if path != result:
            (aside / path.name).replace(ours.path / path.name)
    for path in ours.files():
        if path.name not in {file.name for file in files}:
            path.unlink()
    if result in files:
        (aside / result.name).replace(ours.path / result.name)


def _differences(ours: Result, theirs: Result) -> dict[str, tuple[Any, Any]]:
    """The metrics in which two results of one trial differ, test metrics first."""
    if ours.outcome != theirs.outcome:
        return {"outcome": (str(ours), str(theirs))}
    a, b = ours.summary, theirs.summary
    names = [name for name in dict.fromkeys([*a, *b]) if name not in INCIDENTAL]
    names.sort(key=lambda name: not name.startswith("test_"))
    pairs = {name: (a.get(name), b.get(name)) for name in names}
    # Compared as JSON, in which NaN equals itself.
    return {name: pair for name, pair in pairs.items() if canonical(pair[0]) != canonical(pair[1])}


def _united(ours: list[Row], theirs: list[Row]) -> list[Row] | None:
    """Our points and their additional or better ones; None if there are no such points."""
    found = {canonical(row["point"]): row for row in ours}
    more: dict[str, Row] = {}
    for row in theirs:
        key = canonical(row["point"])
        if key not in found or _is_better(row, found[key]):
            more[key] = row
    return list((found | more).values()) if more else None


def _is_better(point: Row, known: Row) -> bool:
    """Whether a point was measured although the known one failed, or by a newer rule."""
    has_failed_here = point["outcome"] == TrialOutcome.FINISHED != known["outcome"]
    return has_failed_here or (is_current(point) and not is_current(known))
