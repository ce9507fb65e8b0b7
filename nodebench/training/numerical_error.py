"""How far a model's solves and gradients are from those of the ODE that it defines.

That ODE is taken to be what a reference, a solver with very many steps, makes of it in float64.
Where an error is not well above the reference's own, it is not told.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import linear_regression
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_map

from nodebench.errors import Diverged, TrialFailure
from nodebench.ode.block import ode_blocks, recorded, solved_by, take_evaluations
from nodebench.ode.gradients.buffers import buffers_kept, settled_weights
from nodebench.spec.solver import Gradient, Solver
from nodebench.store.result import Row
from nodebench.training.machine import memory_in_use, peak_memory, release_memory, synchronize
from nodebench.training.task import Task

SOLVE_SAMPLES = 8
"""Enough for an error's size, and few enough to cost little compared with a test set."""
GRADIENT_SAMPLES = 16
IN_LITTLE_MEMORY = Gradient(name="recompute", segments="auto")

NEAR = 10
"""An error is reported if it is this many times the reference's own."""
GROWTH = 4
"""The factor by which a reference's steps grow where it is too coarse to measure an error."""
SOLVE_GROWTH, GRADIENT_GROWTH = 16, 4
"""So many times its first steps, a reference takes at most: a gradient costs more than a solve."""
ROUNDING = 1e-14
"""No reference is taken to be nearer to the truth, whatever it says of itself."""


class Reference:
    """What a solver of many steps finds, as one vector, and how far that is from the truth.

    Its own error is taken to be what half its steps change, which is more, by Richardson: 15 times
    as much for Runge-Kutta in a smooth field, and less at the kinks of a ReLU's.
    """

    def __init__(self, found: Callable[[Solver], Tensor], solver: Solver, growth: int):
        self._found, self._most = found, growth * (solver.steps or 1)
        self._take(solver)

    def _take(self, solver: Solver) -> None:
        value = self._found(solver)
        half = self._found(_with_steps(solver, max(1, (solver.steps or 0) // 2)))
        self.solver, self.value = solver, value
        self.own_error = max(ROUNDING, _distance(half, value))

    def error(self, found: Tensor) -> float | None:
        """The relative error of what was found; None where the reference cannot tell it.

        If need be, the reference takes more steps first.
        """
        while math.isfinite(error := _distance(found, self.value)):
            if error >= NEAR * self.own_error:
                return error
            steps = GROWTH * (self.solver.steps or 1)
            if self.own_error == ROUNDING or steps > self._most:
                break
            self._take(_with_steps(self.solver, steps))
        return None


def _with_steps(solver: Solver, steps: int) -> Solver:
    """The same method with this number of steps."""
    return solver.model_copy(update={"steps": steps, "step_size": None})


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


class ReferenceSolves:
    """The error of a model's solves, on a few training samples, in float64."""

    def __init__(self, model: nn.Module, task: Task[Any], reference: Solver):
        self.model = _in_double(model).eval()
        self.limits = [block.max_evaluations for block in ode_blocks(model)]
        with torch.no_grad(), solved_by(self.model, reference), recorded(self.model) as solves:
            task.loss(self.model, task.sample(SOLVE_SAMPLES))
        self.solves = [(block, y0, times) for block, y0, times, _ in solves]
        self.reference = Reference(self._outputs, reference, SOLVE_GROWTH)

    def under(self, solver: Solver) -> float | None:
        """‖y − y*‖ / ‖y*‖ over the outputs of all ODE blocks; None if that is not known.

        It is not where a solve fails, or is as near to the truth as the finest reference. Each
        block starts from the first reference's own input, so that errors do not add up.
        """
        try:
            with _limited(self.model, self.limits):
                found = self._outputs(solver)
            return self.reference.error(found)
        except TrialFailure:
            return None

    def order(self, solver: Solver) -> float | None:
        """The observed order of convergence: the slope of the error over h, h/2 and h/4."""
        if solver.facts.kind == "adaptive":
            return None
        errors = []
        for finer in (1, 2, 4):
            steps = solver.steps and solver.steps * finer
            size = solver.step_size and solver.step_size / finer
            error = self.under(solver.model_copy(update={"steps": steps, "step_size": size}))
            if error is not None:
                errors.append((math.log(finer), -math.log(error)))
        return linear_regression(*zip(*errors, strict=True)).slope if len(errors) > 1 else None

    @torch.no_grad()
    def _outputs(self, solver: Solver) -> Tensor:
        """What the blocks give under a solver, as one vector."""
        take_evaluations(self.model)
        with solved_by(self.model, solver):
            return torch.cat(
                [b.trajectory(y0, times)[1:].flatten() for b, y0, times in self.solves]
            )


class ReferenceGradient:
    """The error of a model's gradients of the loss, on a few training samples.

    They are compared with backprop through the reference in float64, all parameters together.
    Dropout is off, and power iterations stand still; batches are normalised by their own
    statistics, as in training.
    """

    def __init__(self, model: nn.Module, task: Task[Any], reference: Solver):
        self.model, self.task = model, task
        self.batch = task.sample(GRADIENT_SAMPLES)
        exact = _in_double(model)

        def found(solver: Solver) -> Tensor:
            with _as_in_training(exact), solved_by(exact, solver, IN_LITTLE_MEMORY):
                return self._gradient(exact)

        self.reference = Reference(found, reference, GRADIENT_GROWTH)

    def of(self, gradient: Gradient, solver: Solver) -> Row:
        """Relative error and cosine of a gradient, with the time and memory that it takes.

        The error is None where the reference cannot tell it.
        """
        with _as_in_training(self.model), solved_by(self.model, solver, gradient):
            found = self._gradient(self.model).double()
            release_memory(self.task.device)
            before = memory_in_use(self.task.device)
            synchronize(self.task.device)
            start = time.perf_counter()
            loss = self.task.loss(self.model, self.batch).mean
            forward = sum(take_evaluations(self.model))
            loss.backward()  # type: ignore[no-untyped-call]
            synchronize(self.task.device)
            seconds = time.perf_counter() - start
            backward = sum(take_evaluations(self.model))
        if not found.isfinite().all():
            raise Diverged("the gradient is not finite")
        error, expected = self.reference.error(found), self.reference.value
        return {
            "gradient_error": error,
            "gradient_cosine": torch.cosine_similarity(found, expected, dim=0).item(),
            "seconds": seconds,
            "memory_bytes": max(0, peak_memory(self.task.device) - before),
            "nfe_forward": forward,
            "nfe_backward": backward,
        }

    def _gradient(self, model: nn.Module) -> Tensor:
        """The loss's gradient with respect to all parameters, as one vector."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        take_evaluations(model)  # the limit holds for each pass
        loss = self.task.loss(model, self.batch).mean
        take_evaluations(model)
        parts = torch.autograd.grad(loss, parameters, allow_unused=True)
        take_evaluations(model)
        filled = zip(parts, parameters, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in filled])


def _in_double(model: nn.Module) -> nn.Module:
    """A copy in float64, which takes float32 inputs and may evaluate as often as it needs to."""
    twin = copy.deepcopy(model).double()
    twin.register_forward_pre_hook(lambda _module, inputs: tree_map(_widened, inputs))
    for block in ode_blocks(twin):
        block.max_evaluations = None
    return twin


def _widened(value: Any) -> Any:
    is_real = isinstance(value, Tensor) and value.is_floating_point()
    return value.double() if is_real else value


@contextmanager
def _limited(model: nn.Module, limits: Sequence[int | None]) -> Iterator[None]:
    """Meanwhile, each block may evaluate so often in a pass; afterwards, without a limit."""
    try:
        for block, limit in zip(ode_blocks(model), limits, strict=True):
            block.max_evaluations = limit
        yield
    finally:
        for block in ode_blocks(model):
            block.max_evaluations = None


@contextmanager
def _as_in_training(model: nn.Module) -> Iterator[None]:
    """Training mode without its noise, and without a trace in buffers and gradients."""
    was_training = model.training
    model.train()
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.eval()
    try:
        with buffers_kept(model), settled_weights(model):
            yield
    finally:
        model.zero_grad()
        model.train(was_training)
