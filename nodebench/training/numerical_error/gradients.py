"""The error and the cost of a model's gradients."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_map

from nodebench.errors import Diverged, TrialFailure
from nodebench.ode.block import PassCounts, ode_blocks, one_pass, recorded, replaced, solved_by
from nodebench.ode.buffers import additional_calls
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from nodebench.store.rows import Row
from nodebench.training.machine import (
    freed_memory_returned,
    memory_of,
    release_memory,
    synchronize,
    where_memory_suffices,
)
from nodebench.training.numerical_error.reference import (
    Reference,
    in_double,
    is_real,
    relative_distance,
    widened,
)
from nodebench.training.task import Predictor, Task

GRADIENT_SAMPLES = 16
GRADIENT_GROWTH = 4
"""The largest growth of a reference's steps: a gradient costs more than a solve."""
IN_LITTLE_MEMORY = Gradient(name="recompute", segments="auto")


class Gradients(NamedTuple):
    """The loss's gradients with respect to all parameters, and to the solves' initial states."""

    parameters: Tensor
    states: Tensor

    @property
    def are_finite(self) -> bool:
        """Whether all numbers are finite."""
        return all(bool(part.isfinite().all()) for part in self)


class ReferenceGradient:
    """The error of a model's gradients of the loss, on a few training samples.

    They are compared with backprop through the reference in float64: all parameters together, and
    all initial states of ODE blocks together. A model with a `solution` in closed form is its own
    reference. Dropout is off, and power iterations are frozen; batches are normalised by their own
    statistics, as in training. The references' gradients are kept in `known`, by their solver.
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
        exact, wide = in_double(model), tree_map(widened, self.batch)
        closed = self._in_closed_form(exact, wide)
        known = {} if known is None else known

        def found(solver: Solver) -> Gradients:
            if closed:
                return closed
            if solver not in known:
                solves = solved_by(exact, solver, IN_LITTLE_MEMORY)
                unlimited = replaced(ode_blocks(exact), max_evaluations=None)
                with _as_in_training(exact), solves, unlimited, freed_memory_returned():
                    known[solver] = self._gradients(exact, wide)
            return known[solver]

        self.reference = Reference(
            lambda solver: found(solver).parameters, reference, GRADIENT_GROWTH
        )
        self._states = Reference(lambda solver: found(solver).states, reference, GRADIENT_GROWTH)
        self._plain: dict[Solver, Gradients | None] = {}

    def of(self, gradient: Gradient, solver: Solver) -> Row:
        """Relative errors and cosine of a gradient, with the time and memory that it takes.

        `gradient_error` is for the gradient of the parameters, and `state_gradient_error` for that
        of the states; each is None if the reference is too inaccurate to measure it.
        `backprop_error` is the relative distance of both from backprop through the same solve.
        """
        with _as_in_training(self.model):
            with solved_by(self.model, solver, gradient):
                found = self._gradients(self.model, self.batch)
                if not found.are_finite:
                    raise Diverged("the gradient is not finite")
                costs = self._costs()
            plain = found if gradient.name == "backprop" else self._by_backprop(solver)
        by_backprop = None if plain is None else relative_distance(_joined(found), _joined(plain))
        ours, expected = found.parameters.double(), self.reference.value
        return {
            "gradient_error": self.reference.error(ours),
            "state_gradient_error": self._states.error(found.states.double()),
            "backprop_error": by_backprop,
            "gradient_cosine": torch.cosine_similarity(ours, expected, dim=0).item(),
            **costs,
        }

    def _costs(self) -> Row:
        """Seconds, evaluations and memory of a forward and backward pass, after a warm-up."""
        release_memory(self.task.device)
        synchronize(self.task.device)
        start = time.perf_counter()
        forward, backward = self._passes()
        synchronize(self.task.device)
        seconds = time.perf_counter() - start
        self.model.zero_grad()
        return {
            "seconds": seconds,
            "memory_bytes": memory_of(self.task.device, self._passes),
            "nfe_forward": forward.nfe,
            "nfe_backward": backward.nfe,
        }

    def _passes(self) -> tuple[PassCounts, PassCounts]:
        """Takes a forward and a backward pass, which sets the gradients of the parameters."""
        with one_pass(self.model) as forward:
            loss = self.task.loss(self.model, self.batch).mean
        with one_pass(self.model) as backward:
            loss.backward()
        return forward, backward

    def _by_backprop(self, solver: Solver) -> Gradients | None:
        """The gradient by backprop, with whatever memory is available; None if that fails."""
        if solver not in self._plain:
            self._plain[solver] = None
            if solver.method != "scipy_solver":
                with (
                    suppress(TrialFailure),
                    where_memory_suffices(),
                    solved_by(self.model, solver, Gradient(name="exact")),
                ):
                    self._plain[solver] = self._gradients(self.model, self.batch)
        return self._plain[solver]

    def _gradients(self, model: nn.Module, batch: Any) -> Gradients:
        with recorded(model) as solves:
            loss = self._loss(model, model, batch)
        return _taken(model, loss, [solve.y0 for solve in solves if solve.y0.requires_grad])

    def _in_closed_form(self, model: nn.Module, batch: Any) -> Gradients | None:
        """The gradient along the model's solution; None if it has none in closed form."""
        starts: list[Tensor] = []

        def network(y0: Tensor) -> Tensor:
            starts.append(y0)
            ends: Tensor = model.solution(y0)  # pyrefly: ignore[not-callable]
            return ends

        if not getattr(model, "is_solved", False):
            return None
        return _taken(model, self._loss(model, network, batch), starts)

    def _loss(self, model: nn.Module, network: Predictor, batch: Any) -> Tensor:
        """The mean loss, differentiable also with respect to the inputs."""
        with one_pass(model):
            return self.task.loss(network, tree_map(_as_leaf, batch)).mean


def _taken(model: nn.Module, loss: Tensor, states: Sequence[Tensor]) -> Gradients:
    """The loss's gradients, each kind as one vector."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    inputs = [*parameters, *states]
    with one_pass(model):
        found = torch.autograd.grad(loss, inputs, allow_unused=True)
    filled = zip(found, inputs, strict=True)
    flat = [(torch.zeros_like(x) if g is None else g).flatten() for g, x in filled]
    at = len(parameters)
    return Gradients(*(torch.cat(part or [loss.new_empty(0)]) for part in (flat[:at], flat[at:])))


def _joined(gradients: Gradients) -> Tensor:
    return torch.cat(gradients).double()


def _as_leaf(value: Any) -> Any:
    """A tensor of real numbers as a leaf that requires a gradient; anything else as it is."""
    return value.detach().requires_grad_() if is_real(value) else value


@contextmanager
def _as_in_training(model: nn.Module) -> Generator[None]:
    """Training mode without its noise; buffers are restored and gradients cleared at the end."""
    was_training = model.training
    model.train()
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.eval()
    try:
        with additional_calls(model):
            yield
    finally:
        model.zero_grad()
        model.train(was_training)
