"""What a trial lacks: its result, or evaluation points."""

from __future__ import annotations

from nodebench.errors import DeadlineExceeded, EvaluationLimit, Stopped
from nodebench.planning.options import Demand
from nodebench.spec import Trial
from nodebench.spec.point import EvaluationPoint, known_point
from nodebench.store import Result, Store, TrialFolder
from nodebench.store.result import FINISHED, Row
from nodebench.sweep.file import Limits
from nodebench.sweep.points import points


def is_missing(trial: Trial, result: Result | None, store: Store, demand: Demand) -> bool:
    """Whether a trial lacks its result, a point, or was stopped by a limit raised since."""
    wanted = frozenset(points(trial, demand.evaluate))
    return is_incomplete(result, store.folder(trial.id), wanted, demand)


def is_incomplete(
    result: Result | None,
    folder: TrialFolder,
    wanted: frozenset[EvaluationPoint],
    demand: Demand,
) -> bool:
    """The same, from what has been read of a trial already."""
    if result is None or not result.is_result:
        return True
    if demand.retry_failed and result.outcome != FINISHED:
        return True
    if result.outcome == Stopped.outcome:
        return demand.stop is None  # what a search gave up is no answer to other sweeps
    if result.outcome == FINISHED:
        return bool(wanted) and not wanted <= known_points(folder, demand.limits).keys()
    return _was_raised(result.limit, result.outcome, demand.limits)


def known_points(folder: TrialFolder, limits: Limits) -> dict[EvaluationPoint, Row]:
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
