"""A sweep's trials and their standing in the store."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from nodebench.planning.missing import is_incomplete
from nodebench.planning.options import Demand, RunOptions
from nodebench.spec import Trial
from nodebench.spec.identity import Cell
from nodebench.spec.point import EvaluationPoint
from nodebench.store import Result, Store
from nodebench.store.result import TrialState
from nodebench.sweep import Sweep
from nodebench.sweep.file import Evaluate
from nodebench.sweep.points import points


class Standing(StrEnum):
    """The standing of a planned trial that has no final result; the others have their outcome."""

    NEW = "new"
    CONTINUES = "continues"
    """It continues a shorter training, which has finished."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    INCOMPLETE = "incomplete"
    """It is trained, and evaluations are missing."""

    RETRAINS = "retrains"
    """Evaluations are missing, and so is its checkpoint: it is retrained for its weights."""

    RESUMES = "resumes"
    """It has a result that is not final: a limit was raised, or a retry is requested."""


@dataclass(frozen=True)
class Entry:
    """A trial of the plan, its state, and whether a run would do anything for it."""

    trial: Trial
    state: TrialState
    result: Result | None
    missing: bool
    is_trained: bool
    """Whether its weights are final, its own or from elsewhere: only points can be missing."""

    continues: str | None = None
    """The id of a finished shorter training that a new one continues."""

    wanted: frozenset[EvaluationPoint] = frozenset()
    """The points that it should have, if it has begun."""

    def __repr__(self) -> str:
        return f"<Entry {self.trial.id}: {self.standing}>"

    @property
    def is_finished(self) -> bool:
        """Whether the training has finished."""
        return self.result is not None and self.result.is_finished

    @property
    def standing(self) -> Standing | str:
        """The trial's standing, or its outcome if a run would do nothing for it."""
        if self.continues and self.state == TrialState.NEW:
            return Standing.CONTINUES
        if self.state != TrialState.DONE or self.result is None:
            return Standing(self.state)
        if not self.missing:
            return self.result.outcome
        if not self.is_finished:
            return Standing.RESUMES
        return Standing.INCOMPLETE if self.is_trained else Standing.RETRAINS


def entries(
    sweep: Sweep, store: Store, demand: Demand, ids: Container[str] | None = None
) -> list[Entry]:
    """The plan of a sweep, or of its trials with these ids, compared with the store."""
    begun = store.trial_ids()
    trials = [trial for trial in sweep.trials if ids is None or trial.id in ids]
    results = store.results(trial.id for trial in trials)
    shorter, wanted = _Shorter(store), _Wanted(demand.evaluate)
    found = []
    for trial in trials:
        result = results.get(trial.id)
        folder = store.folder(trial.id)
        points = wanted.of(trial) if trial.id in begun else frozenset()
        missing = is_incomplete(result, folder, points, demand)
        state = folder.state(result) if trial.id in begun else TrialState.NEW
        is_finished = result is not None and result.is_finished
        is_trained = is_finished and (not missing or folder.checkpoint.exists())
        is_trained = is_trained or trial.spec.train.iterations == 0
        begins = not is_finished and (state == TrialState.NEW or not folder.checkpoints())
        continues = shorter.of(trial) if begins else None
        found.append(Entry(trial, state, result, missing, is_trained, continues, points))
    return found


def options_for_entries(todo: Sequence[Entry], options: RunOptions) -> RunOptions:
    """The options for these entries: which continue a shorter training, and which are trained."""
    continues = {entry.trial.id: entry.continues for entry in todo if entry.continues}
    trained = frozenset(entry.trial.id for entry in todo if entry.is_trained)
    return replace(options, continues=continues, trained=trained)


class _Wanted:
    """The points that trials should have, computed once for all seeds of a cell."""

    def __init__(self, blocks: tuple[Evaluate, ...]):
        self._blocks = blocks
        self._names_seeds = any("seed" in block.when for block in blocks)
        self._by_cell: dict[Cell, frozenset[EvaluationPoint]] = {}

    def of(self, trial: Trial) -> frozenset[EvaluationPoint]:
        found = None if self._names_seeds else self._by_cell.get(trial.cell)
        if found is None:
            found = self._by_cell[trial.cell] = frozenset(points(trial, self._blocks))
        return found


class _Shorter:
    """Finds the longest finished training by the same recipe that is shorter than a trial's."""

    def __init__(self, store: Store):
        self.store = store

    @cached_property
    def _finished(self) -> dict[str, list[tuple[int, str]]]:
        found: dict[str, list[tuple[int, str]]] = {}
        for trial_id, result in self.store.results().items():
            if result.is_finished and result.recipe:
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


def orphans(sweep: Sweep, store: Store, entries: Sequence[Entry] = ()) -> dict[str, str]:
    """Trials that only earlier versions of the sweep planned: id -> label; none with `--set`.

    Those that an entry continues are left out.
    """
    if sweep.made.changed:
        return {}
    in_use = {trial.id for trial in sweep.trials} | {entry.continues for entry in entries}
    ever = store.sweep(sweep.name).labels()
    return {trial: label for trial, label in ever.items() if trial not in in_use}
