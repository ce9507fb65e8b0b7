"""How far a model's solves and gradients are from those of the ODE that it defines.

That ODE is taken to be what a reference, a solver with very many steps, makes of it in float64.
Where an error is not well above the reference's own, it is not told.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from statistics import linear_regression
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_map

from nodebench.errors import Diverged, TrialFailure
from nodebench.ode.block import ode_blocks, recorded, solved_by, take_evaluations
from nodebench.ode.gradients.buffers import buffers_kept, settled_weights
from nodebench.spec.solver import Gradient, Solver
from nodebench.store.result import Row
from nodebench.training.machine import freed_memory_returned, memory_of, release_memory, synchronize
from nodebench.training.task import Predictor, Task

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


class Gradients(NamedTuple):
    """Those of the loss with respect to all parameters, and to where all solves start."""

    parameters: Tensor
    states: Tensor

    @property
    def are_finite(self) -> bool:
        """Whether all numbers are."""
        return all(bool(part.isfinite().all()) for part in self)


class ReferenceGradient:
    """The error of a model's gradients of the loss, on a few training samples.

    They are compared with backprop through the reference in float64: all parameters together, and
    all states from which ODE blocks start. A model that has its `solution` in closed form is its
    own reference. Dropout is off, and power iterations stand still; batches are normalised by their
    own statistics, as in training. What references find is kept in `known`, by their solver.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task[Any],
        reference: Solver,
        known: dict[Solver, Gradients] | None = None,
    ):
        self.model, self.task = model, task
        self.batch = task.sample(GRADIENT_SAMPLES)
        exact, wide = _in_double(model), tree_map(_widened, self.batch)
        closed, known = self._in_closed_form(exact, wide), {} if known is None else known

        def found(solver: Solver) -> Gradients:
            if closed:
                return closed
            if solver not in known:
                solves = solved_by(exact, solver, IN_LITTLE_MEMORY)
                with _as_in_training(exact), solves, freed_memory_returned():
                    known[solver] = self._gradients(exact, wide)
            return known[solver]

        self.reference = Reference(
            lambda solver: found(solver).parameters, reference, GRADIENT_GROWTH
        )
        self._states = Reference(lambda solver: found(solver).states, reference, GRADIENT_GROWTH)
        self._plain: dict[Solver, Gradients | None] = {}

    def of(self, gradient: Gradient, solver: Solver) -> Row:
        """Relative errors and cosine of a gradient, with the time and memory that it takes.

        `gradient_error` is that of the parameters' gradient, and `state_gradient_error` that of the
        states', each None where the reference cannot tell it. `backprop_error` is how far both are
        from backprop's through the same solve.
        """
        with _as_in_training(self.model):
            with solved_by(self.model, solver, gradient):
                found = self._gradients(self.model, self.batch)
                if not found.are_finite:
                    raise Diverged("the gradient is not finite")
                costs = self._costs()
            plain = found if gradient.name == "backprop" else self._by_backprop(solver)
        ours, expected = found.parameters.double(), self.reference.value
        return {
            "gradient_error": self.reference.error(ours),
            "state_gradient_error": self._states.error(found.states.double()),
            "backprop_error": None if plain is None else _distance(_joined(found), _joined(plain)),
            "gradient_cosine": torch.cosine_similarity(ours, expected, dim=0).item(),
            **costs,
        }

    def _costs(self) -> Row:
        """Seconds, evaluations and memory of a forward and backward pass, once it is warm."""
        release_memory(self.task.device)
        synchronize(self.task.device)
        start = time.perf_counter()
        loss = self.task.loss(self.model, self.batch).mean
        forward = sum(take_evaluations(self.model))
        loss.backward()  # type: ignore[no-untyped-call]
        synchronize(self.task.device)
        seconds = time.perf_counter() - start
        backward = sum(take_evaluations(self.model))
        del loss
        self.model.zero_grad()
        return {
            "seconds": seconds,
            "memory_bytes": memory_of(self.task.device, self._pass),
            "nfe_forward": forward,
            "nfe_backward": backward,
        }

    def _pass(self) -> None:
        loss = self.task.loss(self.model, self.batch).mean
        take_evaluations(self.model)
        loss.backward()  # type: ignore[no-untyped-call]
        take_evaluations(self.model)

    def _by_backprop(self, solver: Solver) -> Gradients | None:
        """The gradient of backprop, taken in what memory there is; None where it has none."""
        if solver not in self._plain:
            self._plain[solver] = None
            with suppress(TrialFailure, MemoryError):
                if solver.method != "scipy_solver":
                    with solved_by(self.model, solver, Gradient(name="exact")):
                        self._plain[solver] = self._gradients(self.model, self.batch)
        return self._plain[solver]

    def _gradients(self, model: nn.Module, batch: Any) -> Gradients:
        with recorded(model) as solves:
            loss = self._loss(model, model, batch)
        return _taken(model, loss, [y0 for _, y0, _, _ in solves if y0.requires_grad])

    def _in_closed_form(self, model: nn.Module, batch: Any) -> Gradients | None:
        """The gradient along the model's solution; None if it has none in closed form."""
        starts: list[Tensor] = []

        def network(y0: Tensor) -> Tensor:
            starts.append(y0)
            ends: Tensor = model.solution(y0)  # type: ignore[operator]
            return ends

        if not getattr(model, "is_solved", False):
            return None
        return _taken(model, self._loss(model, network, batch), starts)

    def _loss(self, model: nn.Module, network: Predictor, batch: Any) -> Tensor:
        """The mean loss, with a gradient by the inputs too."""
        take_evaluations(model)  # the limit holds for each pass
        loss = self.task.loss(network, tree_map(_as_leaf, batch)).mean
        take_evaluations(model)
        return loss


def _taken(model: nn.Module, loss: Tensor, states: Sequence[Tensor]) -> Gradients:
    """The loss's gradients, each kind as one vector."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    inputs = [*parameters, *states]
    found = torch.autograd.grad(loss, inputs, allow_unused=True)
    take_evaluations(model)
    filled = zip(found, inputs, strict=True)
    flat = [(torch.zeros_like(x) if g is None else g).flatten() for g, x in filled]
    at = len(parameters)
    return Gradients(*(torch.cat(part or [loss.new_empty(0)]) for part in (flat[:at], flat[at:])))


def _joined(gradients: Gradients) -> Tensor:
    return torch.cat(gradients).double()


def _in_double(model: nn.Module) -> nn.Module:
    """A copy in float64, which takes float32 inputs and may evaluate as often as it needs to."""
    twin = copy.deepcopy(model).double()
    twin.register_forward_pre_hook(lambda _module, inputs: tree_map(_widened, inputs))
    for block in ode_blocks(twin):
        block.max_evaluations = None
    return twin


def _widened(value: Any) -> Any:
    return value.double() if _is_real(value) else value


def _as_leaf(value: Any) -> Any:
    """A tensor of which a gradient can be taken, and anything else as it is."""
    return value.detach().requires_grad_() if _is_real(value) else value


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


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
