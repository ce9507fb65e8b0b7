"""Fixed-step explicit Runge-Kutta methods on a grid of Python floats.

The number of steps is an integer and times never become tensors, so a solve needs no host
synchronisation and its evaluations are steps x stages exactly.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from nodebench.ode.tableau import Tableau

State = tuple[Tensor, ...]
RightHandSide = Callable[[float | Tensor, State], State]
"""f(t, y) -> dy/dt, over tuples of tensors of any shapes."""

Carry = tuple[State, ...]
"""The states that a method carries from one step to the next, the solution first."""


@dataclass(frozen=True)
class Grid:
    """`steps + 1` times from t0 to t1, equally spaced, or by `step_size` with a shorter last step.

    They are generated one by one, since a very long list would exhaust the machine's memory.
    """

    t0: float
    t1: float
    steps: int
    step_size: float | None = None

    def __iter__(self) -> Iterator[float]:
        yield self.t0
        if self.step_size is None:
            width = self.t1 - self.t0
            yield from (self.t0 + width * i / self.steps for i in range(1, self.steps))
        else:
            size = self.step_size if self.t1 > self.t0 else -self.step_size
            yield from (self.t0 + size * i for i in range(1, self.steps))
        yield self.t1


class Stepper(ABC):
    """A method that takes given steps, one at a time.

    It carries a tuple of states from step to step, the solution first. A Runge-Kutta method carries
    nothing else; see `reversible.py` for methods that do.
    """

    def start(self, _f: RightHandSide, _t: float, y: State, /) -> Carry:
        """The carry for the first step."""
        return (y,)

    @abstractmethod
    def step(self, f: RightHandSide, t: float, h: float, carry: Carry) -> Carry:
        """The carry after a step from t to t + h."""


class RungeKutta(Stepper):
    """An explicit Runge-Kutta method."""

    def __init__(self, tableau: Tableau):
        self.tableau = tableau

    def step(self, f: RightHandSide, t: float, h: float, carry: Carry) -> Carry:
        """Returns y + h sum_i b_i k_i."""
        (y,), tableau = carry, self.tableau
        slopes: list[State] = []
        for a, c in zip(tableau.a, tableau.c, strict=True):
            slopes.append(f(t + c * h, moved(y, h, a, slopes)))
        return (moved(y, h, tableau.b, slopes),)


def integrate(
    f: RightHandSide, y0: State, grids: Iterable[Iterable[float]], stepper: Stepper
) -> list[State]:
    """The states at the start of the first grid and at the end of each.

    `grids` holds one grid of times per interval, each starting where the one before ends.
    """
    states = [y0]
    carry: Carry = ()
    for grid in grids:
        for t, h in steps(grid):
            carry = stepper.step(f, t, h, carry or stepper.start(f, t, y0))
        states.append(carry[0])
    return states


def steps(times: Iterable[float]) -> Iterator[tuple[float, float]]:
    """The steps (t, h) of a grid."""
    return ((t, t_next - t) for t, t_next in itertools.pairwise(times))


def moved(y: State, h: float, weights: Sequence[float], slopes: Sequence[State]) -> State:
    """Returns y + h sum_i weights_i slopes_i, component by component."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            y = tuple(x.add(k, alpha=h * weight) for x, k in zip(y, slope, strict=True))
    return y
