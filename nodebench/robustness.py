"""One trained model under many solvers: the points of `evaluate`, measured and stored."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn

from nodebench.errors import DeadlineExceeded, OutOfMemory, TrialFailure
from nodebench.fidelity import GradientError, SolverError
from nodebench.ode.block import batch_statistics, ode_blocks, solved_by
from nodebench.plan import known_points, limit_of
from nodebench.point import Point
from nodebench.solver_settings import Gradient, Solver
from nodebench.spec import TrialSpec
from nodebench.store import FINISHED, Row, TrialFolder
from nodebench.sweepfile import Limits
from nodebench.task import Task

Value = TypeVar("Value")


def evaluate_points(
    model: nn.Module,
    untrained: Callable[[], nn.Module],
    task: Task[Any],
    spec: TrialSpec,
    wanted: Sequence[Point],
    folder: TrialFolder,
    limits: Limits,
) -> None:
    """Evaluates the model at every wanted point that the folder lacks, and writes each at once.

    A point whose solve fails is a point without measures and with a reason.

    Raises:
        DeadlineExceeded: if time is up; the points that are left stay missing.
    """
    known = known_points(folder, limits)
    missing = [point for point in wanted if point not in known]
    if not missing:
        return
    meter = _Meter(model, untrained, task, spec)
    for point in missing:
        known[point] = {"point": point.row, **_outcome(meter, point, known, limits)}
        folder.write_evaluations(list(known.values()))


def _outcome(meter: _Meter, point: Point, known: dict[Point, Row], limits: Limits) -> Row:
    solver = meter.solver(point)
    row = {"solver": solver.model_dump(exclude_none=True)}
    for other, found in known.items():
        if found["solver"] == row["solver"] and _alike(point, other):
            return {k: v for k, v in found.items() if k != "point"}
    try:
        measures = meter.measures(point, solver)
    except DeadlineExceeded:
        raise
    except TrialFailure as failure:
        limit = limit_of(failure.outcome, limits)
        return row | {"outcome": failure.outcome, "reason": str(failure), "limit": limit}
    except (MemoryError, torch.OutOfMemoryError) as error:
        return row | {"outcome": OutOfMemory.outcome, "reason": str(error)}
    return row | {"outcome": FINISHED, **measures}


def _alike(one: Point, other: Point) -> bool:
    """Whether two points differ in how they name their solver alone."""
    names = ("test_size", "batch_norm", "gradient", "weights")
    return all(getattr(one, name) == getattr(other, name) for name in names)


class _Meter:
    """Measures one trial's model; references are made once, when the first point needs them."""

    def __init__(
        self,
        model: nn.Module,
        untrained: Callable[[], nn.Module],
        task: Task[Any],
        spec: TrialSpec,
    ):
        self.model, self.task, self.spec = model, task, spec
        assert spec.solver is not None
        # After adaptation, the blocks have another than the spec.
        self.trained = next((block.solver for block in ode_blocks(model)), spec.solver)
        self.solver_error = cache(lambda _statistics: SolverError(model, task))
        self.gradient_error = cache(
            lambda weights: GradientError(model if weights == "end" else untrained(), task)
        )

    def solver(self, point: Point) -> Solver:
        return point.solver(self.trained, self.spec.model.span)

    def measures(self, point: Point, solver: Solver) -> Row:
        if point.gradient:
            own = self.spec.gradient
            named = own if own and own.name == point.gradient else Gradient(name=point.gradient)
            return self.gradient_error(point.weights).of(named.beside(solver), solver)
        is_batch = point.batch_norm == "batch"
        with batch_statistics(self.model) if is_batch else contextlib.nullcontext():
            with solved_by(self.model, solver):
                found = self.task.evaluate(self.model, size=point.test_size)
            error = self.solver_error(point.batch_norm).under(solver)
        measures = {**found.measures, "nfe": found.nfe, "forward_s": found.forward_s}
        return measures if error is None else {**measures, "solver_error": error}
