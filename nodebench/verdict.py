"""Is a trained model still an ODE? A verdict from its evaluated points.

A model whose accuracy falls when a finer solver integrates the same weights has learned its
solver's error along with its task: it is a residual network in disguise (Ott et al. 2021). Gusak
et al. 2020 state it as the (S, n)-criterion: trained by solver S with n steps, a model has smooth
dynamics if no more powerful solver lowers its accuracy.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nodebench.identity import Trial
from nodebench.point import LIMIT, is_own, known_point, points
from nodebench.solver_settings import Solver
from nodebench.store import FINISHED, Row, Store
from nodebench.sweep import Sweep
from nodebench.vocabulary import METHODS

ODE, RESNET, UNDECIDED = "ODE", "ResNet in disguise", "undecided"

NUMBERS = ("own", "limit", "drop", "sufficient_steps", "order")

ROUNDING = 1e-12
"""Errors below this, in float64, are no longer the method's."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on one trained model, and the numbers that it rests on.

    `own` and `limit` are the headline metric under the training solver and under the finest one.
    `drop` is what is lost under the worst of the solvers finer than the training's, `reason` why
    nothing can be said. `sufficient_steps` is the smallest evaluated number of the training
    method's steps from which on the metric stays within the margin of the limit, and `order` the
    method's observed order of convergence at the training step size and below.
    """

    word: str
    reason: str = ""
    own: float | None = None
    limit: float | None = None
    drop: float | None = None
    sufficient_steps: int | None = None
    order: float | None = None

    @property
    def numbers(self) -> dict[str, float]:
        """What there is of the numbers, by name."""
        return {n: float(getattr(self, n)) for n in NUMBERS if getattr(self, n) is not None}


@dataclass(frozen=True)
class _Found:
    """An evaluated point, as far as verdicts read it."""

    solver: Solver
    steps: int | None
    value: float
    nfe: float
    error: float | None

    @property
    def order(self) -> int:
        return METHODS[self.solver.method].order


def judge(trial: Trial, sweep: Sweep, store: Store) -> Verdict | None:
    """The verdict on a trial's model by the points that its sweep wants."""
    wanted = set(points(trial, sweep.evaluate))
    if not wanted:
        return None
    folder = store.folder(trial.id)
    result = folder.result()
    rows = [row for row in folder.evaluations() if known_point(row) in wanted]
    return verdict(trial, rows, sweep.margin, result.summary.get("chance") if result else None)


def verdict(
    trial: Trial, rows: Iterable[Row], margin: float, chance: float | None = None
) -> Verdict | None:
    """The verdict on a trial's model; None if it was never evaluated under its own solver.

    `chance` is the metric of a model that has learned nothing, of which nothing can be said.
    """
    rows = _comparable(trial, rows)
    own_row = next((r for r in rows if is_own(trial, known_point(r))), None)
    if own_row is None:
        return None
    if own_row["outcome"] != FINISHED:
        return Verdict(UNDECIDED, f"its own solver: {own_row['outcome']}")
    sign = 1 if trial.spec.data.higher_is_better else -1
    own = _found(trial, own_row)
    found = [_found(trial, row) for row in rows if row["outcome"] == FINISHED]
    limit = _finest(found)
    if limit is None:
        return Verdict(UNDECIDED, _why_no_limit(rows), own.value, order=_order(own, found))
    finer = [p for p in found if p.order >= own.order and p.nfe > own.nfe]
    drop = max((sign * (own.value - p.value) for p in finer), default=0.0)
    numbers: dict[str, Any] = {
        "own": own.value,
        "limit": limit.value,
        "drop": drop,
        "sufficient_steps": _sufficient_steps(own, found, limit.value, margin),
        "order": _order(own, found),
    }
    if chance is not None and sign * (own.value - chance) <= margin:
        return Verdict(UNDECIDED, f"no better than chance, {chance:.3g}", **numbers)
    return Verdict(ODE if drop <= margin else RESNET, "", **numbers)


def _comparable(trial: Trial, rows: Iterable[Row]) -> list[Row]:
    """The points on the largest part of the test set, with learned statistics if there are any."""
    solves = [row for row in rows if not known_point(row).gradient]

    def rank(row: Row) -> tuple[float, bool]:
        point = known_point(row)
        return point.test_size or math.inf, point.batch_norm == "running"

    best = max((rank(row) for row in solves if is_own(trial, known_point(row))), default=None)
    return [row for row in solves if rank(row) == best]


def _found(trial: Trial, row: Row) -> _Found:
    solver, span = Solver(**row["solver"]), trial.spec.model.span or 1.0
    steps = None if solver.facts.kind == "adaptive" else solver.step_count(span)
    value = row[trial.spec.data.metric]
    return _Found(solver, steps, value, row["nfe"], row.get("solver_error"))


def _finest(found: Iterable[_Found]) -> _Found | None:
    """The finest point, if it is no coarser than the limit's definition.

    A tolerance does not say how fine its solve is beside that of a number of steps.
    """
    fixed = [p for p in found if p.solver.facts.kind == "fixed" and p.steps is not None]
    enough = [p for p in fixed if p.order >= METHODS[LIMIT.method].order and _at_limit(p)]
    return max(enough, key=lambda p: (p.order, p.nfe), default=None)


def _at_limit(point: _Found) -> bool:
    assert LIMIT.steps is not None
    return point.steps is not None and point.steps >= LIMIT.steps


def _why_no_limit(rows: Iterable[Row]) -> str:
    for row in rows:
        point = known_point(row)
        if (point.method, point.steps) == (LIMIT.method, LIMIT.steps):
            return f"the limit: {row['outcome']}"
    return "the limit has not been evaluated"


def _of_method(own: _Found, found: Iterable[_Found]) -> list[tuple[int, _Found]]:
    """The points of the training method by their number of steps, each number once."""
    points = {p.steps: p for p in found if p.solver.method == own.solver.method}
    return [(steps, points[steps]) for steps in sorted(s for s in points if s is not None)]


def _sufficient_steps(
    own: _Found, found: Iterable[_Found], limit: float, margin: float
) -> int | None:
    sufficient = None
    for steps, point in reversed(_of_method(own, found)):
        if abs(point.value - limit) > margin:
            break
        sufficient = steps
    return sufficient


def _order(own: _Found, found: Iterable[_Found]) -> float | None:
    """The slope of log error over log steps, from the training step size down."""
    if own.steps is None:
        return None
    errors = [
        (math.log(steps), -math.log(point.error))
        for steps, point in _of_method(own, found)
        if steps >= own.steps and point.error is not None and point.error > ROUNDING
    ]
    return slope(errors)


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """The least-squares slope through (x, y); None through fewer than two x."""
    if len({x for x, _ in points}) < 2:
        return None
    return statistics.linear_regression(*zip(*points, strict=True)).slope
