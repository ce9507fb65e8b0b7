"""Taking a sweep's trials over from another store, as of another machine or an array of jobs.

A trial's id says everything that decides its result, so the same id is the same trial. What this
store lacks is copied; of a trial that both have, the one that is further is kept; and where both
have come to a final end, the ends are compared.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nodebench.errors import StoreError, TrialOutcome
from nodebench.spec.identity import canonical
from nodebench.store.result import Result
from nodebench.store.rows import INCIDENTAL, Row, is_current
from nodebench.store.scratch import scratch
from nodebench.store.store import Store
from nodebench.store.trial_folder import TrialFolder


@dataclass(frozen=True)
class Conflict:
    """A trial with different results here and there; ours was kept.

    `metrics` holds, by name, our value and theirs; the first is the one to show.
    """

    trial_id: str
    metrics: dict[str, tuple[Any, Any]]
    ours: Result
    theirs: Result


@dataclass
class Merged:
    """What came of another store, by trial id."""

    copied: list[str] = field(default_factory=list)
    """Trials that this store lacked."""
    replaced: list[str] = field(default_factory=list)
    """Trials that were further there."""
    extended: list[str] = field(default_factory=list)
    """Trials that were evaluated at more points there."""
    kept: list[str] = field(default_factory=list)
    """Trials that are not further advanced there."""
    running: list[str] = field(default_factory=list)
    """Trials that a process holds, here or there, and that were left alone."""
    conflicts: list[Conflict] = field(default_factory=list)


def require_store(folder: Path, into: Store) -> Store:
    """The store in another folder.

    Raises:
        StoreError: if there is none, or it is this one.
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
    """Copies the trials of these ids from another store.

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
                        _merge(theirs, ours, aside, merged, is_free=is_free)
    except OSError as error:
        raise StoreError(f"`{error.filename}` cannot be merged: {error.strerror}") from error
    return merged


def merge_store(ids: Iterable[str], other: Store, into: Store) -> Merged:
    """As `merge_trials`; of trials that both have, their ends are kept for reports to compare.

    Raises:
        StoreError: if a file cannot be read or written.
    """
    ids = list(ids)
    both = [trial_id for trial_id in ids if into.folder(trial_id).result()]
    ends = {i: [*into.folder(i).elsewhere(), *_ends(other.folder(i))] for i in both}
    merged = merge_trials(ids, other, into)
    for trial_id in set(both) - set(merged.running):
        ours, theirs = into.folder(trial_id), other.folder(trial_id)
        with contextlib.suppress(StoreError), ours.locked(0):  # by now, somebody else's
            for timing in theirs.timings():
                ours.add_timing(timing)
            _keep_elsewhere(ours, ends[trial_id])
    return merged


def _ends(folder: TrialFolder) -> list[Result]:
    """The ends that a trial came to there, and those of others that are known there."""
    result = folder.result()
    return [*([result] if result and result.is_result else []), *folder.elsewhere()]


def _keep_elsewhere(ours: TrialFolder, ends: list[Result]) -> None:
    """Keeps each run of a trial once, but for the one that is ours."""
    own = ours.result()
    others = {_run(end): end for end in ends if own is None or _run(end) != _run(own)}
    if list(others.values()) != ours.elsewhere():
        ours.write_elsewhere(list(others.values()))


def _run(result: Result) -> tuple[object, float, float]:
    """What distinguishes two runs of one trial: where they ended, and when they began and ended.

    Two that resumed copies of one checkpoint began at once.
    """
    host = result.environments[-1].get("host") if result.environments else None
    return host, result.started, result.finished


def _merge(
    theirs: TrialFolder, ours: TrialFolder, aside: Path, merged: Merged, *, is_free: bool
) -> None:
    trial_id = ours.path.name
    if not is_free:
        merged.running.append(trial_id)
    elif not ours.path.exists():
        (merged.copied if _copied(theirs, ours, aside) else merged.running).append(trial_id)
    else:
        try:
            with ours.locked(0):
                _compare(theirs, ours, aside, merged)
        except StoreError:
            merged.running.append(trial_id)


def _copied(theirs: TrialFolder, ours: TrialFolder, aside: Path) -> bool:
    """Copies a trial: aside first, so that half of one is never taken for a trial.

    False where another process has just begun it here.
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
        return False
    return True


def _compare(theirs: TrialFolder, ours: TrialFolder, aside: Path, merged: Merged) -> None:
    """Of a trial that both have, keeps the one that is further; compares what has ended."""
    trial_id = ours.path.name
    here, there = _progress(ours), _progress(theirs)
    if _is_further(there, here):
        _replace(theirs, ours, aside)
        merged.replaced.append(trial_id)
    elif here.end is None or there.end is None or not (here.is_final and there.is_final):
        merged.kept.append(trial_id)
    elif metrics := _differences(here.end, there.end):
        merged.conflicts.append(Conflict(trial_id, metrics, here.end, there.end))
    else:
        for timing in theirs.timings():
            ours.add_timing(timing)
        if points := _united(ours.evaluations(), theirs.evaluations()):
            ours.write_evaluations(points)
        (merged.extended if points else merged.kept).append(trial_id)


NO_CHECKPOINT = -1
"""Less than the epochs of a checkpoint that was written inside the first one."""


@dataclass(frozen=True)
class _Progress:
    """How far a trial is: its end, unless it has none or crashed, and the epochs to resume from."""

    end: Result | None
    resumable: int

    @property
    def reached(self) -> int:
        """Epochs; a trial that is tried again keeps its last end meanwhile."""
        return max(self.resumable, self.end.epoch if self.end else NO_CHECKPOINT)

    @property
    def is_final(self) -> bool:
        """Whether no larger machine, higher limit or milder search would have led further."""
        unfinal = (TrialOutcome.OUT_OF_MEMORY, TrialOutcome.STOPPED)
        return self.end is not None and self.end.limit is None and self.end.outcome not in unfinal


def _progress(folder: TrialFolder) -> _Progress:
    result = folder.result()
    resumable = len(folder.history()) if folder.checkpoints() else NO_CHECKPOINT
    return _Progress(result if result and result.is_result else None, resumable)


def _is_further(one: _Progress, other: _Progress) -> bool:
    """Whether a trial is further here than there, so that nothing is lost with the other.

    What has finished is further than what has not. Otherwise, no checkpoint or end gives way to
    one of fewer epochs, nor a checkpoint to an end without one: of such a pair, neither is further.
    """
    if other.is_final:
        return False
    if one.end is not None and one.is_final:
        return one.end.outcome == TrialOutcome.FINISHED or one.reached >= other.reached
    return one.resumable >= other.resumable and _rank(one, other) > _rank(other, one)


def _rank(one: _Progress, other: _Progress) -> tuple[int, bool, float, int]:
    """What decides between two that are not final: epochs, an end, its limit, a checkpoint."""
    a, b = one.end, other.end
    # Minutes and evaluations do not compare.
    limit = a.limit if a and b and a.outcome == b.outcome else None
    return one.reached, a is not None, limit or 0.0, one.resumable


def _replace(theirs: TrialFolder, ours: TrialFolder, aside: Path) -> None:
    """Puts their files in the place of ours.

    Their result comes last, when nothing of ours is left: killed before, it leaves a trial that
    goes on from a checkpoint, and never their end with our weights.
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
    """What two ends of one trial do not agree on, what tests measured first."""
    if ours.outcome != theirs.outcome:
        return {"outcome": (str(ours), str(theirs))}
    a, b = ours.summary, theirs.summary
    names = [name for name in dict.fromkeys([*a, *b]) if name not in INCIDENTAL]
    names.sort(key=lambda name: not name.startswith("test_"))
    pairs = {name: (a.get(name), b.get(name)) for name in names}
    # As JSON, in which not-a-number is like itself.
    return {name: pair for name, pair in pairs.items() if canonical(pair[0]) != canonical(pair[1])}


def _united(ours: list[Row], theirs: list[Row]) -> list[Row] | None:
    """Our points and their additional or better ones; None if there are none."""
    found = {canonical(row["point"]): row for row in ours}
    more: dict[str, Row] = {}
    for row in theirs:
        key = canonical(row["point"])
        if key not in found or _is_better(row, found[key]):
            more[key] = row
    return list((found | more).values()) if more else None


def _is_better(point: Row, known: Row) -> bool:
    """Whether a point was measured where the known one failed, or by a newer rule."""
    has_failed_here = point["outcome"] == TrialOutcome.FINISHED != known["outcome"]
    return has_failed_here or (is_current(point) and not is_current(known))
