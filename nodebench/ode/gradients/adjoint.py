"""The gradient `adjoint`: the continuous adjoint, solved backwards in time.

With a = dL/dy, the augmented state (y, a, g) obeys dy/dt = f, da/dt = -aᵀ ∂f/∂y and
dg/dt = -aᵀ ∂f/∂θ; its value at times[0] contains dL/dy0 and dL/dθ.

Source: Chen et al. 2018, Algorithm 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nodebench.errors import FieldError
from nodebench.ode.buffers import additional_calls
from nodebench.ode.field import Counted, Norm
from nodebench.ode.gradients.backprop import backprop
from nodebench.ode.gradients.random_state import require_not_random
from nodebench.ode.solve import solve
from nodebench.ode.steppers.stepper import State
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver


def adjoint(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver, gradient: Gradient
) -> list[Tensor]:
    """The states at `times`; the backward pass needs no other states.

    Raises:
        FieldError: if f draws random numbers.
    """
    require_not_random(f, times[0], y0, "adjoint")
    later = _Solve.apply(f, times, solver, gradient, y0, *f.parameters)
    return [y0, *later]


class _Solve(torch.autograd.Function):
    """y0 -> the states at times[1:]."""

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
            _, *later = backprop(f, y0, times, solver, gradient)
        ctx.f, ctx.times = f, times
        ctx.solver = gradient.backward(solver)
        ctx.norm = norm_of_adjoint(f, gradient, of_states=2)
        ctx.but_batch_norm = gradient.update_batch_norm
        ctx.save_for_backward(*later, *parameters)
        return tuple(later)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *by_state: Tensor) -> tuple[Tensor | None, ...]:
        saved, count = ctx.saved_tensors, len(by_state)
        states, parameters = saved[:count], saved[count:]
        augmented = _augmented(ctx.f, parameters)
        a = torch.zeros_like(states[0])
        gradients = tuple(torch.zeros_like(p) for p in parameters)
        spans = [(after, before) for before, after in itertools.pairwise(ctx.times)]
        with additional_calls(ctx.f.module, but_batch_norm=ctx.but_batch_norm):
            for state, by, span in reversed(list(zip(states, by_state, spans, strict=True))):
                start = (state, a + by, *gradients)
                _, a, *rest = solve(augmented, start, span, ctx.solver, ctx.norm).states[-1]
                gradients = tuple(rest)
        return (None,) * 4 + (a, *gradients)


def norm_of_adjoint(f: Counted, gradient: Gradient, *, of_states: int) -> Norm | None:
    """The error norm of a backward solve; None selects the solver's own norm over all parts.

    The first `of_states` parts are measured in f's own norm. The others are gradients of
    parameters, which the seminorm ignores (Kidger, Chen, Lyons 2021).
    """
    if gradient.norm != "seminorm" and f.norm is None:
        return None

    def norm(state: State) -> Tensor:
        of_state = f.norm or _root_mean_square
        parts = [of_state((part,)) for part in state[:of_states]]
        if gradient.norm != "seminorm":
            parts += [_root_mean_square((part,)) for part in state[of_states:]]
        return torch.stack(parts).max()

    return norm


def _root_mean_square(state: State) -> Tensor:
    (part,) = state
    return part.square().mean().sqrt()


def _augmented(f: Counted, parameters: tuple[Tensor, ...]) -> Callable[..., State]:
    products_at = VectorProducts(f, parameters, "adjoint")

    def right_hand_side(t: float | Tensor, state: State) -> State:
        dy, products = products_at(t, state[0], -state[1])
        return (dy, *products)

    return right_hand_side


class VectorProducts:
    """The products aᵀ ∂f/∂y and aᵀ ∂f/∂θ at a time and state."""

    def __init__(self, f: Counted, parameters: tuple[Tensor, ...], gradient: str):
        self._f, self._parameters, self._gradient = f, parameters, gradient
        self._is_checked = False

    def __call__(self, t: float | Tensor, y: Tensor, a: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns f(t, y), and its products with a.

        Raises:
            FieldError: on the first call, if f uses a tensor with a gradient that it does not own.
        """
        y = y.detach().requires_grad_()
        inputs = (y, *self._parameters)
        with torch.enable_grad():
            dy = self._f(t, y)
            if not dy.requires_grad:  # f depends on nothing that has a gradient
                return dy, [torch.zeros_like(x) for x in inputs]
            if not self._is_checked:
                require_own_tensors([dy], [y], self._f.module, self._gradient)
                self._is_checked = True
            products = torch.autograd.grad(dy, inputs, a, allow_unused=True)
        filled = zip(products, inputs, strict=True)
        return dy.detach(), [torch.zeros_like(x) if v is None else v for v, x in filled]


def require_own_tensors(
    results: Iterable[Tensor], states: Iterable[Tensor], module: nn.Module, gradient: str
) -> None:
    """Rejects an f that uses tensors with a gradient other than its state and parameters."""
    own = {*map(id, states), *map(id, module.parameters())}
    for leaf in _leaves(results):
        if id(leaf) not in own:
            raise FieldError(
                f"f, a `{type(module).__name__}`, uses what is made from a tensor of shape "
                f"{list(leaf.shape)}, neither its state nor a parameter of its own, whose gradient "
                f"`{gradient}` would lose. Make it a part of the state or a parameter of f, detach "
                "it, or take `gradient: backprop` or `recompute`"
            )


def _leaves(results: Iterable[Tensor]) -> Iterator[Tensor]:
    """The leaf tensors of the autograd graph of some results."""
    left, seen = [result.grad_fn for result in results], set()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        left += [before for before, _ in node.next_functions]
