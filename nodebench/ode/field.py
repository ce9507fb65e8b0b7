"""A right-hand side f(t, y) as solvers call it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor, nn
from torch.nn.modules import module as global_hooks

from nodebench.errors import FieldError
from nodebench.ode.adaptive.counts import StepCounts
from nodebench.ode.steppers.stepper import State
from nodebench.ode.tableau import EmbeddedTableau, Tableau
from nodebench.ode.taylor.series import Series
from nodebench.spec.solver import Solver

ExactForm = Literal["backprop", "recompute"]
"""The two forms of the gradient `exact`."""

Norm = Callable[[State], Tensor]
"""(a state, or errors of the same form) -> a scalar tensor."""


OnStep = Callable[[EmbeddedTableau, Tensor, State, Sequence[State]], None]
"""(tableau, signed step, y, slopes of all stages) of a step that at least one sample accepted.

The step is a scalar or, with steps per sample, [samples], 0 for those that rejected it.
"""


class Field(nn.Module):
    """A right-hand side whose time may be a number or a tensor.

    All right-hand sides of nodebench are fields. Any other module is given the time as a tensor of
    the state's type and device, whatever the solver: a scalar or, with steps per sample, of shape
    [batch, 1, ...], with as many dimensions as the state.

    A field that `takes_rows` may be called for a subset of a batch's samples. `is_random` says
    whether it draws random numbers from torch; None stands for unknown.
    """

    takes_rows = True
    is_random: bool | None = None

    def whole_solve(self, _y0: Tensor, /) -> WholeSolve | None:
        """The `WholeSolve` for initial states like this one, or None if there is none."""
        return None

    def series(self, _t: float | Tensor, _rate: float, /) -> Series | None:
        """The series of f(t + rate s, y(s)); None if a layer has no rule."""
        return None


class WholeSolve(Protocol):
    """Takes all steps of a solve as one operation of autograd.

    It reports its evaluations, and its step counts if it is adaptive, to f.
    """

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
    """The bytes that gradient methods may use, and what they remember from one solve to the next.

    Checkpoints do not store it: everything in it must follow from the solves.
    """

    bytes: float = math.inf
    exact_forms: dict[Solver, ExactForm] = field(default_factory=dict)
    """Solver -> the form that the gradient `exact` chose at its first solve."""


class Counted:
    """A module f(t, y) -> dy/dt that reports each of its evaluations to `on_evaluations`.

    `memory` belongs to the module's ODE block. Adaptive methods measure the errors of its states by
    `norm`; None selects their own norm, the root mean square. `on_counts` is called with the step
    counts of each adaptive solve, and `on_step`, if given, with each step of an embedded method.
    """

    def __init__(
        self,
        module: nn.Module,
        on_evaluations: Callable[[int], None],
        memory: Memory | None = None,
        norm: Norm | None = None,
        on_counts: Callable[[StepCounts], None] | None = None,
        on_step: OnStep | None = None,
    ):
        self.module, self.on_evaluations, self.norm = module, on_evaluations, norm
        self.memory = memory or Memory()
        self.on_counts, self.on_step = on_counts or ignored, on_step

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """The module's parameters that have a gradient."""
        return tuple(p for p in self.module.parameters() if p.requires_grad)

    def __call__(self, t: float | Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        self.on_evaluations(1)
        return slope(self.module, t, y)


class OverStates:
    """A field in the form that steppers call, f(t, (y,)) -> (dy/dt,)."""

    def __init__(self, f: Counted):
        self._f = f
        is_observed = f.on_step is not None  # the observer's sums are over the whole batch
        self.takes_rows = isinstance(f.module, Field) and f.module.takes_rows and not is_observed

    def __call__(self, t: float | Tensor, y: State) -> State:
        """(dy/dt,)."""
        return (self._f(t, y[0]),)


def slope(module: nn.Module, t: float | Tensor, y: Tensor) -> Tensor:
    """dy/dt at a time and state.

    Raises:
        FieldError: if its shape is not the state's, since arithmetic would broadcast it silently.
    """
    if not isinstance(t, Tensor) and not isinstance(module, Field):
        t = y.new_full((), t)  # filled on its device: copying a number there would stall it
    dy = module(t, y)
    if not isinstance(dy, Tensor) or dy.shape != y.shape:
        found = list(dy.shape) if isinstance(dy, Tensor) else f"a {type(dy).__name__}"
        raise FieldError(
            f"f, a `{type(module).__name__}`, gives {found} for a state of shape {list(y.shape)}. "
            "dy/dt is a tensor of the state's shape"
        )
    return dy


def ignored(*_: object) -> None:
    """A callback that ignores its arguments."""


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
