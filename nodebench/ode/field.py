"""A right-hand side f(t, y) as solvers call it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn.modules import module as global_hooks

from nodebench.errors import FieldError
from nodebench.ode.adaptive.counts import StepCounts
from nodebench.ode.fixed import State
from nodebench.ode.tableau import Tableau
from nodebench.ode.taylor.series import Series
from nodebench.spec.solver import Solver

Norm = Callable[[State], Tensor]
"""Of a state, or of errors in the form of one: a number without dimensions."""


class Field(nn.Module):
    """A right-hand side whose time may be a number or a tensor.

    Those of nodebench are. Any other module is given a tensor of the state's type and device,
    whatever the solver: without dimensions or, with steps per sample, of shape
    [batch, 1, ...], with as many dimensions as the state.

    A field that `takes_rows` may be called for some samples of a batch alone.
    """

    takes_rows = True

    def whole_solve(self, _y0: Tensor, /) -> WholeSolve | None:
        """What solves from such a state as one operation of autograd, if anything does."""
        return None

    def series(self, _t: float | Tensor, _rate: float, /) -> Series | None:
        """F(t + rate s, y(s)) as a series; None if there are no rules for its layers."""
        return None


class WholeSolve(Protocol):
    """What takes all steps of a solve as one operation of autograd."""

    def on_grids(
        self, f: Counted, y0: Tensor, grids: Iterable[Iterable[float]], tableau: Tableau
    ) -> list[Tensor]:
        """The state at the end of each grid of times, by an explicit Runge-Kutta method."""

    def controlled(
        self, f: Counted, y0: Tensor, times: Sequence[float], solver: Solver
    ) -> list[Tensor]:
        """The state at each of times[1:], by an embedded method with steps for the whole batch."""


@dataclass
class Memory:
    """What gradient methods may fill, in bytes, and what they keep from one solve to the next.

    No checkpoint has it: what is kept must follow from what is solved.
    """

    bytes: float = math.inf
    kept: dict[str, dict[Any, Any]] = field(default_factory=dict)

    def of(self, gradient: str) -> dict[Any, Any]:
        """What a gradient method keeps, by its name."""
        return self.kept.setdefault(gradient, {})


class Counted:
    """A module f(t, y) -> dy/dt, and what is called at each of its evaluations.

    `memory` is that of the ODE block which the module belongs to. By `norm`, adaptive methods
    measure the errors of its states; None is their own norm, the root mean square. `on_counts` is
    told of the steps of each solve by an adaptive method.
    """

    def __init__(
        self,
        module: nn.Module,
        on_evaluations: Callable[[int], None],
        memory: Memory | None = None,
        norm: Norm | None = None,
        on_counts: Callable[[StepCounts], None] | None = None,
    ):
        self.module, self.on_evaluations, self.norm = module, on_evaluations, norm
        self.memory = memory or Memory()
        self.on_counts = on_counts or ignored

    def __call__(self, t: float | Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        self.on_evaluations(1)
        return slope(self.module, t, y)


class OverStates:
    """A field as steps call it, f(t, (y,)) -> (dy/dt,); `on_counts` is told of a solve's steps."""

    def __init__(self, f: Counted):
        self._f = f
        self.takes_rows = isinstance(f.module, Field) and f.module.takes_rows
        self.on_counts = f.on_counts

    def __call__(self, t: float | Tensor, y: State) -> State:
        """(dy/dt,)."""
        return (self._f(t, y[0]),)


def has_hooks(module: nn.Module) -> bool:
    """Whether a module has forward or backward hooks, its own or global."""
    kinds = (
        global_hooks._global_forward_hooks, global_hooks._global_forward_pre_hooks,
        global_hooks._global_backward_hooks, global_hooks._global_backward_pre_hooks,
        module._forward_hooks, module._forward_pre_hooks,
        module._backward_hooks, module._backward_pre_hooks,
    )  # fmt: skip
    return any(kinds)


def runs_as(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module runs the `forward` of a class, and has no hooks."""
    is_same = isinstance(module, kind) and type(module).forward is kind.forward
    return is_same and "forward" not in vars(module) and not has_hooks(module)


def ignored(*_: object) -> None:
    """What is told of, and of no interest to anybody."""


def slope(module: nn.Module, t: float | Tensor, y: Tensor) -> Tensor:
    """dy/dt at a time and state.

    Raises:
        FieldError: if it has not the state's shape, in which arithmetic would broadcast it.
    """
    if not isinstance(t, Tensor) and not isinstance(module, Field):
        t = y.new_full((), t)  # filled on its device, which copying a number to it would stop
    dy = module(t, y)
    if not isinstance(dy, Tensor) or dy.shape != y.shape:
        found = list(dy.shape) if isinstance(dy, Tensor) else f"a {type(dy).__name__}"
        raise FieldError(
            f"f, a `{type(module).__name__}`, gives {found} for a state of shape {list(y.shape)}. "
            "dy/dt is a tensor of the state's shape"
        )
    return dy
