"""One trained model under many solvers: the points of `evaluate`, measured and stored."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from nodebench.errors import OutOfMemory, TrialFailure
from nodebench.ode.block import batch_statistics, ode_blocks, solved_by, take_evaluations
from nodebench.planning.missing import known_points, limit_of
from nodebench.spec import Trial
from nodebench.spec.point import EvaluationPoint, is_own, reference_solver
from nodebench.spec.solver import Gradient, Solver
from nodebench.store import TrialFolder
from nodebench.store.result import FINISHED, Row
from nodebench.sweep.file import Limits
from nodebench.training.machine import environment, is_out_of_memory, shortage
from nodebench.training.numerical_error import ReferenceGradient, ReferenceSolves
from nodebench.training.task import Task


def evaluate_points(
    model: nn.Module,
    untrained: Callable[[], nn.Module],
    task: Task[Any],
    trial: Trial,
    wanted: Sequence[EvaluationPoint],
    folder: TrialFolder,
    limits: Limits,
) -> None:
    """Evaluates the model at every wanted point that the folder lacks, and writes each at once.

    A point whose solve fails, or that comes after the deadline, is a point without measures and
    with a reason.
    """
    known = known_points(folder, limits)
    missing = [point for point in wanted if point not in known]
    if not missing:
        return
    meter = _Meter(model, untrained, task, trial)
    for point in missing:
        start = time.monotonic()
        row = {"point": point.row, **_outcome(meter, point, known, limits)}
        known[point] = row | {"measuring_s": time.monotonic() - start}
        folder.write_evaluations(list(known.values()))


def _outcome(
    meter: _Meter, point: EvaluationPoint, known: dict[EvaluationPoint, Row], limits: Limits
) -> Row:
    solver = meter.solver(point)
    row = {"solver": solver.model_dump(exclude_none=True), "hardware": meter.hardware}
    for other, found in known.items():
        if found["solver"] == row["solver"] and _alike(point, other):
            return {k: v for k, v in found.items() if k != "point"}
    try:
        measures = meter.measures(point, solver)
    except TrialFailure as failure:
        limit = limit_of(failure.outcome, limits)
        return row | {"outcome": failure.outcome, "reason": str(failure), "limit": limit}
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return row | {"outcome": OutOfMemory.outcome, "reason": shortage(error)}
    return row | {"outcome": FINISHED, **measures}


def _alike(one: EvaluationPoint, other: EvaluationPoint) -> bool:
    """Whether two points differ in how they name their solver alone."""
    names = ("test_size", "batch_norm", "gradient", "at")
    return all(getattr(one, name) == getattr(other, name) for name in names)


class _Meter:
    """Measures one trial's model; references are made once, when the first point needs them."""

    def __init__(
        self,
        model: nn.Module,
        untrained: Callable[[], nn.Module],
        task: Task[Any],
        trial: Trial,
    ):
        self.model, self.untrained, self.task, self.trial = model, untrained, task, trial
        assert trial.spec.solver is not None
        self.trained, self.span = trial.spec.solver, trial.spec.model.span
        for block in ode_blocks(model):  # which know better: of adaptation, of a user's own model
            self.trained = block.solver
            self.span = None if self.span is None else block.t1
        self.hardware: str = environment(task.device)["hardware"]
        self._solver_errors: dict[str, ReferenceSolves | None] = {}
        self._gradient_errors: dict[str, ReferenceGradient] = {}

    def solver(self, point: EvaluationPoint) -> Solver:
        return point.solver(self.trained, self.span)

    def measures(self, point: EvaluationPoint, solver: Solver) -> Row:
        take_evaluations(self.model)
        if point.gradient:
            return self._gradient_error(point.at).of(self._gradient(point.gradient, solver), solver)
        is_batch = point.batch_norm == "batch"
        with batch_statistics(self.model) if is_batch else contextlib.nullcontext():
            with solved_by(self.model, solver):
                found = self.task.evaluate(self.model, size=point.test_size)
            errors = self._solver_error(point.batch_norm)
        measures: Row = {**found.measures, "nfe": found.nfe, "forward_s": found.forward_s}
        if errors is not None:
            measures["solver_error"] = errors.under(solver)
            measures["order"] = errors.order(solver) if is_own(self.trial, point) else None
        return {name: value for name, value in measures.items() if value is not None}

    def _gradient(self, name: str, solver: Solver) -> Gradient:
        """The trial's own gradient, if it has this name, with its own settings."""
        own = self.trial.spec.gradient
        return (own if own and own.name == name else Gradient(name=name)).beside(solver)

    def _gradient_error(self, at: str) -> ReferenceGradient:
        if at not in self._gradient_errors:
            model = self.model if at == "end" else self.untrained()
            reference = reference_solver(self.trial.spec)
            self._gradient_errors[at] = ReferenceGradient(model, self.task, reference)
        return self._gradient_errors[at]

    def _solver_error(self, statistics: str) -> ReferenceSolves | None:
        """With the batch norm statistics that the model has now; None where float64 is refused."""
        if not list(ode_blocks(self.model)):
            return None
        if statistics not in self._solver_errors:
            reference, found = reference_solver(self.trial.spec), None
            try:
                found = ReferenceSolves(self.model, self.task, reference)
            except (TrialFailure, RuntimeError) as error:  # torch's, of a model bound to float32
                warnings.warn(f"the error of solves is not known: {error}", stacklevel=1)
            self._solver_errors[statistics] = found
        return self._solver_errors[statistics]
