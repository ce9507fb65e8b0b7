"""One trained model under many solvers: the points of `evaluate`, measured and stored."""

from __future__ import annotations

import contextlib
import hashlib
import time
import warnings
from contextlib import AbstractContextManager
from functools import lru_cache

import torch
from torch import nn

from nodebench.errors import DeadlineExceeded, FieldError, TrialFailure, TrialOutcome
from nodebench.ode.block import batch_statistics, ode_blocks, solved_by
from nodebench.planning.missing import known_points, limit_of
from nodebench.spec import Trial, TrialSpec
from nodebench.spec.point import (
    EvaluationPoint,
    gradient_of,
    is_training_solver,
    known_point,
    reference_solver,
)
from nodebench.spec.solver import Solver
from nodebench.store import TrialFolder
from nodebench.store.rows import ERRORS_OUTCOME, ERRORS_RULE, Row, without_errors
from nodebench.training.machine import environment, is_out_of_memory, shortage
from nodebench.training.numerical_error.gradients import Gradients, ReferenceGradient
from nodebench.training.numerical_error.solves import ReferenceSolves
from nodebench.training.preparation import Prepared
from nodebench.training.task import Evaluation


def evaluate_points(
    prepared: Prepared, trial: Trial, folder: TrialFolder, deadline: float | None = None
) -> None:
    """Evaluates the model at every point missing in the folder, and writes each immediately.

    A point whose solve fails, or that is past the deadline, gets a reason instead of measures.
    """
    stored = folder.evaluations()
    rows = {known_point(row): row for row in stored}
    known = known_points(stored, prepared.options)
    missing = [point for point in prepared.options.points(trial) if point not in known]
    if not missing:
        return
    meter = _Meter(prepared, trial, deadline)
    for point in missing:
        start = time.monotonic()
        found = _outcome(meter, point, known, rows.get(point, {}))
        seconds = time.monotonic() - start
        rows[point] = known[point] = {"point": point.row, **found, "measuring_s": seconds}
        folder.write_evaluations(list(rows.values()))


def _outcome(
    meter: _Meter, point: EvaluationPoint, known: dict[EvaluationPoint, Row], before: Row
) -> Row:
    """A point's row; if the point was finished `before`, only its errors are measured again."""
    solver = meter.solver(point)
    row = {
        "solver": solver.model_dump(exclude_none=True),
        "hardware": meter.hardware,
        "errors_rule": ERRORS_RULE,
    }
    for other, found in known.items():
        if found["solver"] == row["solver"] and _alike(point, other):
            return {k: v for k, v in found.items() if k != "point"}
    try:
        if before.get("outcome") == TrialOutcome.FINISHED and not point.gradient:
            row = without_errors(before) | row | {"hardware": before["hardware"]}
            return row | meter.errors(point, solver)
        measures = meter.measures(point, solver)
    except TrialFailure as failure:
        limit = limit_of(failure.outcome, meter.limits)
        return row | {"outcome": failure.outcome, "reason": str(failure), "limit": limit}
    except FieldError as error:
        return row | {"outcome": TrialOutcome.ERROR, "reason": str(error)}
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return row | {"outcome": TrialOutcome.OUT_OF_MEMORY, "reason": shortage(error)}
    return row | {"outcome": TrialOutcome.FINISHED, **measures}


def _alike(one: EvaluationPoint, other: EvaluationPoint) -> bool:
    """Whether two points differ only in how they name their solver."""
    names = ("test_size", "batch_norm", "gradient", "at", "batch_size")
    return all(getattr(one, name) == getattr(other, name) for name in names)


@lru_cache(maxsize=4)
def _known_gradients(_problem: str) -> dict[Solver, Gradients]:
    """The gradients of references: trials that differ only in solver or gradient share them."""
    return {}


def _problem(spec: TrialSpec, model: nn.Module) -> str:
    """A digest of everything that determines the ODE's own gradient: settings, data, weights."""
    settings = spec.model_dump_json(exclude={"solver", "gradient"})
    digest = hashlib.sha256(settings.encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(
            value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


class _Meter:
    """Measures one trial's model; references are computed when the first point needs them."""

    def __init__(self, prepared: Prepared, trial: Trial, deadline: float | None):
        self.prepared, self.trial, self.deadline = prepared, trial, deadline
        self.model, self.task = prepared.model, prepared.task
        self.limits = prepared.options.limits
        assert trial.spec.solver is not None
        self.trained, self.span = trial.spec.solver, trial.spec.model.span
        # The blocks know the adapted solver, and the span of a user's own model.
        for block in ode_blocks(self.model):
            self.trained = block.solver
            self.span = None if self.span is None else block.t1
        self.hardware: str = environment(self.task.device)["hardware"]
        self._correct: dict[tuple[int | None, str], torch.Tensor | None] = {}
        """Which samples of which subset are classified correctly under the training solver."""
        self._solver_errors: dict[str, ReferenceSolves | None] = {}
        self._gradient_errors: dict[str, ReferenceGradient] = {}

    def solver(self, point: EvaluationPoint) -> Solver:
        return point.solver(self.trained, self.span)

    def measures(self, point: EvaluationPoint, solver: Solver) -> Row:
        """All measures of a point."""
        if point.gradient:
            gradient = gradient_of(self.trial.spec, point.gradient, solver)
            return self._gradient_error(point.at).of(gradient, solver)
        found = self._tested(point, solver)
        costs = {"nfe": found.nfe, "forward_s": found.forward_s, **found.steps}
        tested = {**found.measures, **costs, "samples": found.tested}
        if point.is_about_batches:
            tested["samples_per_pass"] = found.samples
        elif found.correct is not None and found.nfe:
            tested |= {"chance": found.chance, **self._changes(point, found.correct)}
        return tested | self.errors(point, solver)

    def _tested(self, point: EvaluationPoint, solver: Solver) -> Evaluation:
        with self._statistics(point), solved_by(self.model, solver):
            size, batch = point.test_size, point.batch_size
            return self.task.evaluate(self.model, size=size, batch_size=batch)

    def _changes(self, point: EvaluationPoint, correct: torch.Tensor) -> Row:
        """How many samples that are right under the training solver are `lost`, and `gained`."""
        where = point.test_size, point.batch_norm
        if is_training_solver(self.trial, point):
            self._correct[where] = correct
            return {}
        if where not in self._correct:  # it was evaluated by another process
            try:
                self._correct[where] = self._tested(point, self.trained).correct
            except TrialFailure:
                self._correct[where] = None
        before = self._correct[where]
        if before is None:
            return {}
        lost, gained = before & ~correct, correct & ~before
        return {"lost": int(lost.sum()), "gained": int(gained.sum())}

    def errors(self, point: EvaluationPoint, solver: Solver) -> Row:
        """The solver's error, and the training solver's order of convergence.

        If time or memory runs out, only the errors are lost: their outcome is reported instead.
        """
        try:
            with self._statistics(point):
                return self._errors(point, solver)
        except DeadlineExceeded as failure:
            return {ERRORS_OUTCOME: failure.outcome, "limit": self.limits.minutes}
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return {ERRORS_OUTCOME: TrialOutcome.OUT_OF_MEMORY}

    def _errors(self, point: EvaluationPoint, solver: Solver) -> Row:
        errors = self._solver_error(point.batch_norm)
        if errors is None:
            return {}
        order = errors.order(solver) if is_training_solver(self.trial, point) else None
        found = {"solver_error": errors.under(solver), "order": order}
        return {name: value for name, value in found.items() if value is not None}

    def _statistics(self, point: EvaluationPoint) -> AbstractContextManager[None]:
        is_batch = point.batch_norm == "batch"
        return batch_statistics(self.model) if is_batch else contextlib.nullcontext()

    def _gradient_error(self, at: str) -> ReferenceGradient:
        if at not in self._gradient_errors:
            model = self.model if at == "end" else self._untrained()
            reference = reference_solver(self.trial.spec)
            known = _known_gradients(_problem(self.trial.spec, model))
            self._gradient_errors[at] = ReferenceGradient(model, self.task, reference, known)
        return self._gradient_errors[at]

    def _untrained(self) -> nn.Module:
        model = self.prepared.untrained()
        self.prepared.limit_solves(model, self.deadline)
        return model

    def _solver_error(self, statistics: str) -> ReferenceSolves | None:
        """Reference solves with the model's current batch norm statistics; None if they fail."""
        if not ode_blocks(self.model):
            return None
        if statistics not in self._solver_errors:
            reference, found = reference_solver(self.trial.spec), None
            try:
                found = ReferenceSolves(self.model, self.task, reference)
            except (TrialFailure, RuntimeError) as error:  # torch's, if a model needs float32
                if isinstance(error, DeadlineExceeded) or is_out_of_memory(error):
                    raise
                warnings.warn(f"the error of solves is not known: {error}", stacklevel=1)
            self._solver_errors[statistics] = found
        return self._solver_errors[statistics]
