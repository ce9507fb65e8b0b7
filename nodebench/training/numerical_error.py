"""How far a model's solves and gradients are from those of the ODE that it defines.

That ODE is taken to be what a `reference` solver with very many steps makes of it in float64.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
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
"""Enough for an error's size; so few that measuring it costs little beside a test set."""
GRADIENT_SAMPLES = 16
IN_LITTLE_MEMORY = Gradient(name="recompute", segments="auto")
ROUNDING = 1e-12
"""Errors below this are no longer the method's."""


class ReferenceSolves:
    """The error of a model's solves, on a few training samples, in float64."""

    def __init__(self, model: nn.Module, task: Task[Any], reference: Solver):
        self.model, self.reference = _in_double(model).eval(), reference
        with torch.no_grad(), solved_by(self.model, reference), recorded(self.model) as solves:
            task.loss(self.model, task.sample(SOLVE_SAMPLES))
        self.solves = solves
        for block, own in zip(ode_blocks(self.model), ode_blocks(model), strict=True):
            block.max_evaluations = own.max_evaluations

    @torch.no_grad()
    def under(self, solver: Solver) -> float | None:
        """‖y − y_ref‖ / ‖y_ref‖ over the outputs of all ODE blocks; None if that is not known.

        It is not where a solve fails, or is no coarser than the reference. Each block starts from
        the reference's own input, so that errors do not add up.
        """
        if solver.method == self.reference.method and self._steps(solver) >= self._steps(
            self.reference
        ):
            return None
        error = size = 0.0
        take_evaluations(self.model)
        try:
            with solved_by(self.model, solver):
                for block, y0, times, expected in self.solves:
                    off = block.trajectory(y0, times) - expected
                    error += off[1:].square().sum().item()
                    size += expected[1:].square().sum().item()
        except TrialFailure:
            return None
        return (error / size) ** 0.5 if math.isfinite(error) and 0 < size < math.inf else None

    def order(self, solver: Solver) -> float | None:
        """The observed order of convergence: the slope of the error over h, h/2 and h/4."""
        if solver.facts.kind == "adaptive":
            return None
        errors = []
        for finer in (1, 2, 4):
            steps = solver.steps and solver.steps * finer
            size = solver.step_size and solver.step_size / finer
            error = self.under(solver.model_copy(update={"steps": steps, "step_size": size}))
            if error is not None and error > ROUNDING:
                errors.append((math.log(finer), -math.log(error)))
        return linear_regression(*zip(*errors, strict=True)).slope if len(errors) > 1 else None

    def _steps(self, solver: Solver) -> int:
        times = self.solves[0][2]
        return solver.step_count(times[1] - times[0])


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
        with _as_in_training(exact), solved_by(exact, reference, IN_LITTLE_MEMORY):
            self.expected = self._gradient(exact)

    def of(self, gradient: Gradient, solver: Solver) -> Row:
        """Relative error and cosine of a gradient, with the time and memory that it takes."""
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
        distance = (found - self.expected).norm() / self.expected.norm()
        return {
            "gradient_error": distance.item(),
            "gradient_cosine": torch.cosine_similarity(found, self.expected, dim=0).item(),
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
