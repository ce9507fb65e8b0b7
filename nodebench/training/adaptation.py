"""Adapts the step size or the tolerance while training, so that accuracy does not depend on it.

Source: Ott et al. 2021, section 4 and appendix. Every 50 iterations, after the backward pass, the
accuracy on the current batch is compared with that under a finer reference solver. A gap above the
threshold halves the step size or the tolerance; otherwise one a tenth larger is tried.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nodebench.errors import Diverged, EvaluationLimit, InputError, StepUnderflow
from nodebench.ode.block import ODEBlock, ode_blocks, one_pass, recorded, solved_by
from nodebench.ode.buffers import buffers_kept
from nodebench.ode.field import slope
from nodebench.spec import TrialSpec
from nodebench.spec.solver import Adapt, Solver
from nodebench.store.rows import Row
from nodebench.training.task import Loss, Task

LARGER = 1.1
FINER = 50.0
"""The factor by which the reference's error estimate is below the training solver's."""

FINEST = torch.finfo(torch.float32).eps
"""The finest tolerance of a reference: a finer one would measure rounding. A rule of ours.

Ott et al. refine without a limit, which never ends for a field that is zero.
"""

MEMORY = 5
"""The number of training iterations whose evaluations are compared with a larger tolerance's."""

FAILED_SOLVES = (StepUnderflow, EvaluationLimit, Diverged)

Accuracy = Callable[[Solver], tuple[float, int]]
"""The accuracy on the current batch under a solver, and the evaluations that it took."""


def adaptation_for(model: nn.Module, task: Task[Any], spec: TrialSpec) -> Adaptation | None:
    """The adaptation of the trial's solver, set in the model's blocks; None if there is none."""
    solver = spec.solver
    if solver is None or solver.adapt is None:
        return None
    blocks = ode_blocks(model)
    if not blocks:
        raise InputError("`solver.adapt`: the model has no `ODEBlock`")
    if solver.facts.kind == "adaptive":
        return ToleranceAdaptation(model, solver)
    span = blocks[0].t1
    if solver.steps is None and solver.step_size is None:
        with _bystanding(model):
            y0 = _state_before(blocks[0], model, task)
            size = min(initial_step_size(blocks[0].f, y0, solver.order or 1), span)
    else:
        size = span / solver.step_count(span)
    return StepAdaptation(model, with_step_size(solver, size))


class Adaptation(ABC):
    """A solver that changes during training."""

    def __init__(self, model: nn.Module, solver: Solver):
        assert solver.adapt is not None
        self.settings: Adapt = solver.adapt
        self.span = ode_blocks(model)[0].t1
        self.evaluations = 0
        self.recent: list[int] = []  # evaluations of the training iterations before this one
        self._set(model, solver)

    def after_backward(
        self,
        model: nn.Module,
        task: Task[Any],
        batch: object,
        loss: Loss,
        nfe: int,
        iteration: int,
    ) -> None:
        """Adapts the solver of the model's blocks, if the iteration, counted from 0, is due for it.

        `nfe` is the evaluations of the batch's forward pass; those for adapting are kept apart.
        """
        if (iteration + 1) % self.settings.every == 0:
            self._adapt(model, task, batch, loss, nfe)
        self.recent = [*self.recent, nfe][-MEMORY:]

    def _adapt(
        self, model: nn.Module, task: Task[Any], batch: object, loss: Loss, nfe: int
    ) -> None:
        def accuracy(solver: Solver) -> tuple[float, int]:
            try:
                with one_pass(model) as counts, _bystanding(model), solved_by(model, solver):
                    found = task.loss(model, batch)
            finally:
                self.evaluations += counts.nfe  # of a failed solve too
            return _accuracy(found), counts.nfe

        # If a comparison solve fails, the solver stays: the training's own solve has succeeded.
        with suppress(*FAILED_SOLVES):
            self._set(model, self.adapted(_accuracy(loss), nfe, accuracy))

    @abstractmethod
    def adapted(self, trained: float, nfe: int, accuracy: Accuracy) -> Solver:
        """The solver to continue with, given the batch's accuracy and evaluations in training."""

    @abstractmethod
    def end_epoch(self) -> Row:
        """The metrics of the epoch that ends: the evaluations for adapting begin again from 0."""

    def state_dict(self) -> dict[str, Any]:
        """The state to keep in a checkpoint."""
        solver = self.solver.model_dump()
        return {"solver": solver, "recent": self.recent, "evaluations": self.evaluations}

    def load_state_dict(self, model: nn.Module, values: dict[str, Any]) -> None:
        """Restores the state of a checkpoint."""
        self.recent, self.evaluations = values["recent"], values.get("evaluations", 0)
        self._set(model, Solver.model_validate(values["solver"]))

    def _set(self, model: nn.Module, solver: Solver) -> None:
        self.solver = solver
        for block in ode_blocks(model):
            block.solver = solver

    def _take_evaluations(self) -> int:
        count, self.evaluations = self.evaluations, 0
        return count


class StepAdaptation(Adaptation):
    """Adapts the step size of Euler's method or the midpoint rule."""

    references: ClassVar[dict[str, str]] = {"euler": "midpoint", "midpoint": "rk4_38"}

    @property
    def step_size(self) -> float:
        """The current step size, in time."""
        assert self.solver.step_size is not None
        return self.solver.step_size

    def adapted(self, trained: float, nfe: int, accuracy: Accuracy) -> Solver:  # noqa: ARG002
        """The solver with half the step size, a tenth more, or the same."""
        reference, _ = accuracy(self.reference())
        if abs(trained - reference) > self.settings.threshold:
            return with_step_size(self.solver, self._halved())
        larger = with_step_size(self.solver, min(LARGER * self.step_size, self.span))
        found, _ = accuracy(larger)
        return larger if abs(reference - found) <= self.settings.threshold else self.solver

    def reference(self) -> Solver:
        """A method of higher order, with a step that reduces its error by the factor `FINER`."""
        order = self.solver.order or 1
        error = (self.step_size / self.span) ** order
        size = self.step_size
        if error * FINER >= 1:
            size = self.span * (error / FINER) ** (1 / (2 * order))
        return Solver(method=self.references[self.solver.method], step_size=size)

    def _halved(self) -> float:
        """Half the step size or, near the maximum number of steps, half of the way there."""
        steps = self.span / self.step_size
        most = self.settings.max_steps or math.inf
        return self.span / (2 * steps if 2 * steps <= most else (steps + most) / 2)

    def end_epoch(self) -> Row:
        """The step size, whether it is at its limit, and the evaluations spent on adapting."""
        assert self.settings.max_steps is not None
        at_limit = self.solver.step_count(self.span) >= self.settings.max_steps
        return {
            "step_size": self.step_size,
            "at_step_limit": float(at_limit),
            "nfe_adaptation": self._take_evaluations(),
        }


class ToleranceAdaptation(Adaptation):
    """Adapts the tolerance of fehlberg2 or dopri5.

    A larger tolerance is rejected if it opens a gap, or if it takes exactly as many evaluations as
    each of the last five training iterations, and so changes nothing.
    """

    fractions: ClassVar[dict[str, float]] = {"fehlberg2": 5.0, "dopri5": 10.0}

    def adapted(self, trained: float, nfe: int, accuracy: Accuracy) -> Solver:
        """The solver with half the tolerance, a tenth more, or the same."""
        tol, _ = self.solver.tolerances
        reference = self._reference(tol, trained, nfe, accuracy)
        if abs(trained - reference) > self.settings.threshold:
            return with_tolerance(self.solver, tol / 2)
        larger = with_tolerance(self.solver, LARGER * tol)
        found, count = accuracy(larger)
        is_close = abs(reference - found) <= self.settings.threshold
        changes_nothing = self.recent == [count] * MEMORY
        return larger if is_close and not changes_nothing else self.solver

    def _reference(self, tol: float, trained: float, nfe: int, accuracy: Accuracy) -> float:
        """The accuracy under dopri5 at a tolerance that takes more evaluations than training.

        If a finer solve fails, or would be finer than `FINEST`, the last one is used.
        """
        finer, found, count = tol / self.fractions[self.solver.method], trained, 0
        while count <= nfe:
            try:
                found, count = accuracy(Solver(method="dopri5", tol=finer))
            except FAILED_SOLVES:
                break
            finer /= 10
            if finer < FINEST:
                break
        return found

    def end_epoch(self) -> Row:
        """The tolerance, and the evaluations spent on adapting."""
        return {"tol": self.solver.tolerances[0], "nfe_adaptation": self._take_evaluations()}


def with_step_size(solver: Solver, size: float) -> Solver:
    """The same solver with this step size."""
    return Solver.model_validate(solver.model_dump() | {"steps": None, "step_size": size})


def with_tolerance(solver: Solver, tol: float) -> Solver:
    """The same solver with this tolerance."""
    return Solver.model_validate(solver.model_dump() | {"tol": tol})


@torch.no_grad()
def initial_step_size(f: nn.Module, y0: Tensor, order: int) -> float:
    """An initial step size from the norms of y, of f and of the change of f along a step.

    Source: Hairer, Nørsett, Wanner 1993, II.4, as in Ott et al. 2021: norms are 2-norms over the
    last axis, averaged over all others, and the tolerance is 0.01.
    """

    def size(x: Tensor) -> float:
        return float(x.norm(dim=-1).mean())

    at_start = slope(f, 0.0, y0)
    d0, d1 = size(y0), size(at_start)
    guess = 1e-6 if min(d0, d1) < 1e-5 else 0.01 * d0 / d1
    d2 = size(slope(f, 0.0, y0 + guess * at_start) - at_start) / guess
    largest = max(d1, d2)
    if largest < 1e-15:
        return min(100 * guess, max(1e-6, 1e-3 * guess))
    return min(100 * guess, math.pow(0.01 / largest, 1 / (order + 1)))


@contextmanager
def _bystanding(model: nn.Module) -> Generator[None]:
    """A context that evaluates a model in training without changing it or the random state."""
    with torch.no_grad(), torch.random.fork_rng(), buffers_kept(model):
        yield


def _state_before(block: ODEBlock, model: nn.Module, task: Task[Any]) -> Tensor:
    """The block's initial state in the first training batch, however the model calls the block."""
    euler = solved_by(model, Solver(method="euler", steps=1))
    with one_pass(model), recorded(model) as solves, euler:
        task.loss(model, next(task.batches(0)))
    for solve in solves:
        if solve.block is block:
            return solve.y0
    raise InputError("`solver.adapt`: the network's first ODE block is not used in a forward pass")


def _accuracy(loss: Loss) -> float:
    return loss.sums["accuracy"].item() / loss.samples
