"""What a sweep still wants: trials without a result, and points not yet evaluated."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nodebench.errors import DeadlineExceeded, EvaluationLimit, Fault, SweepError
from nodebench.identity import Trial
from nodebench.point import Point, asked, known_point, points
from nodebench.store import FINISHED, Result, Row, State, Store, TrialFolder
from nodebench.sweep import Sweep
from nodebench.sweepfile import Evaluate, Limits, Resources

CHECKPOINT_S = 5.0
"""Seconds of training between checkpoints at most, epochs being longer aside."""


@dataclass(frozen=True)
class RunOptions:
    """What a trial is run with, and what does not decide its result."""

    data_root: Path
    resources: Resources = Resources()
    limits: Limits = Limits()
    evaluate: tuple[Evaluate, ...] = ()
    checkpoint_s: float = CHECKPOINT_S
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

    @property
    def is_finished(self) -> bool:
        """Whether the training came to its end."""
        return self.result is not None and self.result.outcome == FINISHED


def entries(sweep: Sweep, store: Store, options: RunOptions) -> list[Entry]:
    """The plan of a sweep against what the store has."""
    results = store.results(trial.id for trial in sweep.trials)
    found = []
    for trial in sweep.trials:
        result = results.get(trial.id)
        missing = is_missing(trial, result, store, options)
        folder = store.folder(trial.id)
        is_finished = result is not None and result.outcome == FINISHED
        is_trained = is_finished and (not missing or folder.checkpoint.exists())
        is_trained = is_trained or trial.spec.train.iterations == 0
        found.append(Entry(trial, folder.state(result), result, missing, is_trained))
    return found


def is_missing(trial: Trial, result: Result | None, store: Store, options: RunOptions) -> bool:
    """Whether a trial lacks its result, a point, or was stopped by a limit raised since."""
    if result is None or not result.is_result:
        return True
    if result.outcome == FINISHED:
        wanted = set(points(trial, options.evaluate))
        return not wanted <= known_points(store.folder(trial.id), options.limits).keys()
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
