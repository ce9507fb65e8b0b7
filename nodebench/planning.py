"""What a sweep still wants: trials without a result, and points not yet evaluated."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from nodebench.errors import DeadlineExceeded, EvaluationLimit, Fault, Stopped, SweepError, shown
from nodebench.expansion import agrees, check_cell, named_paths
from nodebench.identity import Cell, Trial
from nodebench.point import Point, asked, known_point, points
from nodebench.store import Store
from nodebench.sweep import Sweep
from nodebench.sweepfile import Evaluate, Limits, Resources, Stop
from nodebench.tree import parse
from nodebench.trial_folder import FINISHED, Result, Row, State, TrialFolder

CHECKPOINT_S = 5.0
"""At the end of an epoch a checkpoint is written if the last one is older than this."""


@dataclass(frozen=True)
class RunOptions:
    """What a trial is run with, and what does not decide its result."""

    data_root: Path
    resources: Resources = Resources()
    limits: Limits = Limits()
    evaluate: tuple[Evaluate, ...] = ()
    checkpoint_s: float = CHECKPOINT_S
    checkpoint_minutes: float = 5.0
    """Inside an epoch too, a checkpoint is written if the last one is older than this."""

    continues: dict[str, str] = field(default_factory=dict)
    """Of trials that go on from a shorter one: id -> the shorter one's id."""

    stop: Stop | None = None
    """How a search ends trials early."""

    trained: frozenset[str] = frozenset()
    """The ids of trials of which nothing but evaluation is missing."""

    packed: int = 1
    """So many seeds are trained together, in the memory of one trial."""

    retry_failed: bool = False
    """Whether a result that is a failure (DNF) counts as missing."""

    tags: dict[str, str] = field(default_factory=dict)


def require_points(sweep: Sweep, source: str) -> None:
    """Refuses an `evaluate` block that gives no trial of the sweep a point.

    Raises:
        SweepError: with every such block.
    """
    faults = [
        Fault(
            f"evaluate[{number}]",
            "gives no trial a point: `nfe` must be a multiple of a method's stages (times the "
            "ODE blocks; a model by import path takes `steps`), `step_factors` need a training by "
            "steps, `tol_factors` one by tolerance",
        )
        for number, block in enumerate(sweep.evaluate)
        if not any(asked(trial, [block]) for trial in sweep.trials)
    ]
    if faults:
        raise SweepError(source, faults)


@dataclass(frozen=True)
class Entry:
    """A trial of the plan, where it stands, and whether a run would do anything for it."""

    trial: Trial
    state: State
    result: Result | None
    missing: bool
    is_trained: bool
    """Whether nothing but evaluation can be missing, as of weights from elsewhere."""

    continues: str | None = None
    """The id of a shorter training, finished, from which a new one goes on."""

    asked: frozenset[Point] = frozenset()
    """The points that it should have, if it has a result."""

    @property
    def is_finished(self) -> bool:
        """Whether the training came to its end."""
        return self.result is not None and self.result.outcome == FINISHED


def entries(
    sweep: Sweep, store: Store, options: RunOptions, ids: Container[str] | None = None
) -> list[Entry]:
    """The plan of a sweep, or of its trials with these ids, against what the store has."""
    begun = store.begun()
    trials = [trial for trial in sweep.trials if ids is None or trial.id in ids]
    results = store.results(trial.id for trial in trials)
    shorter, wanted = _Shorter(store), _Wanted(options.evaluate)
    found = []
    for trial in trials:
        result = results.get(trial.id)
        folder = store.folder(trial.id)
        asked_for = frozenset() if result is None else wanted.of(trial)
        missing = _is_missing(result, folder, asked_for, options)
        state = folder.state(result) if trial.id in begun else "new"
        is_finished = result is not None and result.outcome == FINISHED
        is_trained = is_finished and (not missing or folder.checkpoint.exists())
        is_trained = is_trained or trial.spec.train.iterations == 0
        begins = not is_finished and (state == "new" or not folder.checkpoints())
        continues = shorter.of(trial) if begins else None
        found.append(Entry(trial, state, result, missing, is_trained, continues, asked_for))
    return found


class _Wanted:
    """The points that trials should have, worked out once for all seeds of a cell."""

    def __init__(self, blocks: tuple[Evaluate, ...]):
        self._blocks = blocks
        self._names_seeds = any("seed" in block.when for block in blocks)
        self._by_cell: dict[Cell, frozenset[Point]] = {}

    def of(self, trial: Trial) -> frozenset[Point]:
        found = None if self._names_seeds else self._by_cell.get(trial.cell)
        if found is None:
            found = self._by_cell[trial.cell] = frozenset(points(trial, self._blocks))
        return found


class _Shorter:
    """Finds, of trainings by the same recipe, the longest finished one that is shorter."""

    def __init__(self, store: Store):
        self.store = store

    @cached_property
    def _finished(self) -> dict[str, list[tuple[int, str]]]:
        found: dict[str, list[tuple[int, str]]] = {}
        for trial_id, result in self.store.results().items():
            if result.outcome == FINISHED and result.recipe:
                found.setdefault(result.recipe, []).append((result.epoch, trial_id))
        return found

    def of(self, trial: Trial) -> str | None:
        if not (trial.spec.train.can_continue and self._finished):
            return None
        known = self._finished.get(trial.recipe_id, [])
        shorter = [
            (epochs, trial_id)
            for epochs, trial_id in known
            if epochs < (trial.spec.train.epochs or 0)
            and self.store.folder(trial_id).checkpoint.exists()
        ]
        return max(shorter, default=(0, None))[1]


def orphans(sweep: Sweep, store: Store) -> dict[str, str]:
    """Trials that an earlier form of the sweep's file planned: id -> label; not with `--set`."""
    if sweep.made.changed:
        return {}
    planned = {trial.id for trial in sweep.trials}
    ever = store.ever_planned(sweep.name)
    return {trial: label for trial, label in ever.items() if trial not in planned}


def chosen(sweep: Sweep, only: Sequence[str], shard: str) -> frozenset[str]:
    """The ids of the trials that `path=value` texts and a shard `i/n` leave.

    Raises:
        SweepError: if they cannot be read, or the texts leave none; of few trials, a shard may.
    """
    cell: dict[str, Any] = {}
    faults: list[Fault] = []
    for text in only:
        path, equals, value = text.partition("=")
        try:
            found = {path.strip(): parse(value)} if equals else {}
        except yaml.YAMLError:
            found = {}
        cell |= found
        if not found:
            faults.append(Fault("--only", f"{shown(text)} should read `dotted.path=value`"))
    check_cell("--only", cell, faults)
    number = re.fullmatch(r"([1-9]\d{0,6})/([1-9]\d{0,6})", shard)
    if number is None or int(number[1]) > int(number[2]):
        faults.append(
            Fault("--shard", f"{shown(shard)} should read i/n with 1 <= i <= n, as in 1/8")
        )
    if faults or number is None:
        raise SweepError(sweep.name, faults)
    first, step = int(number[1]) - 1, int(number[2])
    ids = frozenset(trial.id for trial in sweep.trials[first::step] if agrees(trial.spec, cell))
    if not ids and not any(agrees(trial.spec, cell) for trial in sweep.trials):
        message = f"agrees with no trial of this sweep. There are {_there(sweep, cell)}"
        raise SweepError(sweep.name, [Fault("--only", message)])
    return ids


def _there(sweep: Sweep, cell: Mapping[str, Any]) -> str:
    """What the sweep's trials have where a partial cell names something."""
    found: dict[str, set[str]] = {}
    for named in named_paths(cell):
        for settings in (trial.settings for trial in sweep.trials):
            for path in (p for p in settings if f"{p}.".startswith(f"{named}.")):
                found.setdefault(path, set()).add(shown(settings[path]))
    values = (f"`{path}` {', '.join(sorted(those))}" for path, those in found.items())
    return "; ".join(values) or "none that have such a setting"


def is_missing(trial: Trial, result: Result | None, store: Store, options: RunOptions) -> bool:
    """Whether a trial lacks its result, a point, or was stopped by a limit raised since."""
    wanted = frozenset(points(trial, options.evaluate))
    return _is_missing(result, store.folder(trial.id), wanted, options)


def _is_missing(
    result: Result | None, folder: TrialFolder, wanted: frozenset[Point], options: RunOptions
) -> bool:
    if result is None or not result.is_result:
        return True
    if options.retry_failed and result.outcome != FINISHED:
        return True
    if result.outcome == Stopped.outcome:
        return options.stop is None  # what a search gave up is no answer to other sweeps
    if result.outcome == FINISHED:
        return bool(wanted) and not wanted <= known_points(folder, options.limits).keys()
    return _was_raised(result.limit, result.outcome, options.limits)


def known_points(folder: TrialFolder, limits: Limits) -> dict[Point, Row]:
    """The evaluated points, but for those that failed by a limit which has been raised since."""
    return {
        known_point(row): row
        for row in folder.evaluations()
        if not _was_raised(row.get("limit"), row["outcome"], limits)
    }


def _was_raised(hit: float | None, outcome: str, limits: Limits) -> bool:
    limit = limit_of(outcome, limits)
    return hit is not None and (limit is None or limit > hit)


def limit_of(outcome: str, limits: Limits) -> float | None:
    """The limit that an outcome is about."""
    by_outcome = {EvaluationLimit.outcome: limits.nfe, DeadlineExceeded.outcome: limits.minutes}
    return by_outcome.get(outcome)
