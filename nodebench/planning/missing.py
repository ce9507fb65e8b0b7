"""The missing parts of a trial: its result, or evaluation points."""

from __future__ import annotations

from collections.abc import Iterable

from nodebench.errors import TrialOutcome
from nodebench.planning.options import Demand
from nodebench.spec import Trial
from nodebench.spec.point import EvaluationPoint, known_point
from nodebench.spec.training import Limits
from nodebench.store import Result, TrialFolder
from nodebench.store.rows import Row, ending, is_current


def is_missing(trial: Trial, result: Result | None, folder: TrialFolder, demand: Demand) -> bool:
    """Whether a trial lacks its result or a point, or was stopped by a limit raised since."""
    return is_incomplete(result, folder, frozenset(demand.points(trial)), demand)


def is_incomplete(
    result: Result | None,
    folder: TrialFolder,
    wanted: frozenset[EvaluationPoint],
    demand: Demand,
) -> bool:
    """Like `is_missing`, for a result and wanted points that the caller already has."""
    if result is None or result.is_error:
        return True
    if demand.retry_failed and not result.is_finished:
        return True
    if result.outcome == TrialOutcome.STOPPED:
        return demand.stop is None  # other sweeps still need what a search gave up
    if result.is_finished:
        return bool(wanted) and not wanted <= known_points(folder.evaluations(), demand).keys()
    return _was_raised(result.limit, result.outcome, demand.limits)


def known_points(rows: Iterable[Row], demand: Demand) -> dict[EvaluationPoint, Row]:
    """Those of a trial's evaluated points that need not be measured again.

    A point is measured again if its errors are by an older rule, if it hit a limit that has been
    raised since, or if it failed and failures are to be retried.
    """
    return {
        known_point(row): row
        for row in rows
        if is_current(row)
        and not _was_raised(row.get("limit"), ending(row), demand.limits)
        and not (demand.retry_failed and ending(row) != TrialOutcome.FINISHED)
    }


def _was_raised(hit: float | None, outcome: str, limits: Limits) -> bool:
    limit = limit_of(outcome, limits)
    return hit is not None and (limit is None or limit > hit)


def limit_of(outcome: str, limits: Limits) -> float | None:
    """The limit that an outcome refers to, if any."""
    by_outcome: dict[str, float | None] = {
        TrialOutcome.EVALUATION_LIMIT: limits.nfe,
        TrialOutcome.DEADLINE: limits.minutes,
    }
    return by_outcome.get(outcome)
