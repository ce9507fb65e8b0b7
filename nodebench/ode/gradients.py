"""Three ways to the gradient through a solve: backprop, recompute and the continuous adjoint.

`exact`, a fourth name, is the first or the second of them: see `exact.py`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from nodebench.ode.dense import DenseField, dense_solve
from nodebench.ode.fixed import TABLEAUS, State
from nodebench.ode.per_solve import weights_settled
from nodebench.ode.solve import Norm, grids, solve
from nodebench.solver_settings import Gradient, Solver

Field = Callable[[float | Tensor, Tensor], Tensor]
"""f(t, y) -> dy/dt, of the shape of y."""


class Counted:
    """A module f(t, y) -> dy/dt, and what is called at each of its evaluations."""

    def __init__(self, module: nn.Module, on_evaluation: Callable[[], None]):
        self.module, self.on_evaluation = module, on_evaluation

    def __call__(self, t: float | Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        self.on_evaluation()
        return cast("Tensor", self.module(t, y))


def odeint(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver, gradient: Gradient
) -> list[Tensor]:
    """The states at `times`, each of the shape of y0, with a gradient.

    They are not stacked, which would copy them into another memory layout.

    The module owns the parameters, for which the adjoint accumulates gradients, and the buffers
    (batch statistics, power iterations) which a backward pass must not move on. If the gradient
    says `update_batch_norm`, it moves the batch statistics.
    """
    if not torch.is_grad_enabled() or gradient.name == "backprop":
        return _plain(f, y0, times, solver)
    if gradient.name == "recompute":
        return _recompute(f, y0, times, solver, gradient)
    return _adjoint(f, y0, times, solver, gradient)


def _plain(f: Counted, y0: Tensor, times: Sequence[float], solver: Solver) -> list[Tensor]:
    tableau = TABLEAUS.get(solver.method)
    is_short = torch.is_autocast_enabled(y0.device.type)
    if tableau and isinstance(f.module, DenseField) and torch.is_grad_enabled() and not is_short:
        return dense_solve(f.module, y0, grids(times, solver), tableau, f.on_evaluation)
    with weights_settled():
        states = solve(lambda t, y: (f(t, y[0]),), (y0,), times, solver)
    return [y for (y,) in states]


# --------------------------------------------------------------------------------- recompute


def _recompute(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver, gradient: Gradient
) -> list[Tensor]:
    """Keeps y0 alone, and repeats the solve in the backward pass: the same gradient as backprop.

    Source: Gholami, Keutzer, Biros 2019 (ANODE), for one block.
    """
    kept = _buffers(f.module, but_batch_norm=gradient.update_batch_norm)
    before = _copies(kept)

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return contextlib.nullcontext(), _rewound(kept, before)

    states: list[Tensor] = checkpoint(
        lambda y: _plain(f, y, times, solver), y0, use_reentrant=False, context_fn=contexts
    )
    return states


def _buffers(module: nn.Module, *, but_batch_norm: bool = False) -> list[Tensor]:
    """A module's buffers, or all but the running statistics of batch norm.

    Those may move on in a backward pass: in training, f does not depend on them.
    """
    norms = [part for part in module.modules() if but_batch_norm and isinstance(part, _BatchNorm)]
    moving = {id(buffer) for norm in norms for buffer in norm.buffers()}
    return [buffer for buffer in module.buffers() if id(buffer) not in moving]


def _copies(buffers: list[Tensor]) -> list[Tensor]:
    return [buffer.detach().clone() for buffer in buffers]


@contextlib.contextmanager
def _rewound(buffers: list[Tensor], before: list[Tensor]) -> Iterator[None]:
    """Gives buffers their values from `before`, and afterwards those that they have now."""
    after = _copies(buffers)
    _assign(buffers, before)
    try:
        yield
    finally:
        _assign(buffers, after)


def buffers_kept(
    module: nn.Module, *, but_batch_norm: bool = False
) -> AbstractContextManager[None]:
    """Afterwards, the buffers are what they were: nothing has been learned from what was seen.

    With `but_batch_norm`, the running statistics of batch norm have.
    """
    buffers = _buffers(module, but_batch_norm=but_batch_norm)
    return _rewound(buffers, _copies(buffers))


@torch.no_grad()
def _assign(buffers: list[Tensor], values: list[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)


# ----------------------------------------------------------------------------------- adjoint


def _adjoint(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver, gradient: Gradient
) -> list[Tensor]:
    parameters = tuple(p for p in f.module.parameters() if p.requires_grad)
    later = _AdjointSolve.apply(f, times, solver, gradient, y0, *parameters)
    return [y0, *later]


def _seminorm(state: State) -> Tensor:
    """The error norm of state and adjoint alone (Kidger, Chen, Lyons 2021)."""
    y, a, *_ = state
    return torch.maximum(y.square().mean().sqrt(), a.square().mean().sqrt())


class _AdjointSolve(torch.autograd.Function):
    """The continuous adjoint: the states at times[1:], and a solve backwards in time.

    With a = dL/dy, the augmented state (y, a, g) obeys dy/dt = f, da/dt = -aᵀ ∂f/∂y and
    dg/dt = -aᵀ ∂f/∂θ; its end at times[0] holds dL/dy0 and dL/dθ.

    Source: Chen et al. 2018, Algorithm 1.
    """

    @staticmethod
    def forward(
        ctx: Any,
        f: Counted,
        times: Sequence[float],
        solver: Solver,
        gradient: Gradient,
        y0: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        with torch.no_grad():
            _, *later = _plain(f, y0, times, solver)
        ctx.f, ctx.times, ctx.gradient = f, times, gradient
        ctx.solver = gradient.solver or solver
        ctx.save_for_backward(*later, *parameters)
        return tuple(later)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *by_state: Tensor) -> tuple[Tensor | None, ...]:
        states, parameters = _split(ctx.saved_tensors, len(by_state))
        augmented = _augmented(ctx.f, parameters)
        a = torch.zeros_like(states[0])
        gradients = tuple(torch.zeros_like(p) for p in parameters)
        spans = [(after, before) for before, after in itertools.pairwise(ctx.times)]
        module, is_moving = ctx.f.module, ctx.gradient.update_batch_norm
        norm: Norm | None = _seminorm if ctx.gradient.norm == "seminorm" else None
        kept = buffers_kept(module, but_batch_norm=is_moving)
        with torch.no_grad(), kept, settled_weights(module):
            for state, by, span in reversed(list(zip(states, by_state, spans, strict=True))):
                start = (state, a + by, *gradients)
                _, a, *rest = solve(augmented, start, span, ctx.solver, norm)[-1]
                gradients = tuple(rest)
        return (None,) * 4 + (a, *gradients)


def _split(tensors: Sequence[Tensor], at: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    return tuple(tensors[:at]), tuple(tensors[at:])


@contextlib.contextmanager
def settled_weights(module: nn.Module) -> Iterator[None]:
    """Stops power iterations, so that spectral norms are those of the forward solve."""
    iterating = [
        part
        for part in module.modules()
        if isinstance(part, parametrize.ParametrizationList) and part.training
    ]
    for part in iterating:
        part.eval()
    try:
        yield
    finally:
        for part in iterating:
            part.train()


def _augmented(f: Field, parameters: tuple[Tensor, ...]) -> Callable[..., State]:
    def right_hand_side(t: float | Tensor, state: State) -> State:
        y, a = state[0].detach().requires_grad_(), state[1]
        with torch.enable_grad():
            dy = f(t, y)
            if not dy.requires_grad:  # f depends on nothing that has a gradient
                return (dy, *map(torch.zeros_like, (y, *parameters)))
            products = torch.autograd.grad(dy, (y, *parameters), -a, allow_unused=True)
        filled = zip(products, (y, *parameters), strict=True)
        return (dy.detach(), *(torch.zeros_like(x) if v is None else v for v, x in filled))

    return right_hand_side
