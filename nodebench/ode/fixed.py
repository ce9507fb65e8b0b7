"""Fixed-step explicit Runge-Kutta methods on a grid of Python floats.

The number of steps is an integer and times never become tensors, so a solve needs no host
synchronisation and its evaluations are steps x stages exactly.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

State = tuple[Tensor, ...]
RightHandSide = Callable[[float | Tensor, State], State]
"""f(t, y) -> dy/dt, over tuples of tensors of any shapes."""


@dataclass(frozen=True)
class Tableau:
    """A Butcher tableau: stage i is k_i = f(t + c_i h, y + h sum_j a_ij k_j).

    The step is y + h sum_i b_i k_i.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]


TABLEAUS: dict[str, Tableau] = {
    "euler": Tableau(a=((),), b=(1.0,), c=(0.0,)),
    "midpoint": Tableau(a=((), (1 / 2,)), b=(0.0, 1.0), c=(0.0, 1 / 2)),
    "heun2": Tableau(a=((), (1.0,)), b=(1 / 2, 1 / 2), c=(0.0, 1.0)),
    "heun3": Tableau(a=((), (1 / 3,), (0.0, 2 / 3)), b=(1 / 4, 0.0, 3 / 4), c=(0.0, 1 / 3, 2 / 3)),
    "rk4": Tableau(
        a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
        b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
        c=(0.0, 1 / 2, 1 / 2, 1.0),
    ),
    "rk4_38": Tableau(
        a=((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
        b=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
        c=(0.0, 1 / 3, 2 / 3, 1.0),
    ),
}


@dataclass(frozen=True)
class Grid:
    """`steps + 1` times from t0 to t1, equally spaced, or by `step_size` with a shorter last step.

    They are made one by one, since a list of very many would take the machine's memory.
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


def integrate(
    f: RightHandSide, y0: State, grids: Iterable[Iterable[float]], method: str
) -> list[State]:
    """The states at the start of the first grid and at the end of each.

    `grids` holds one grid of times per interval, each starting where the one before ends.
    """
    tableau = TABLEAUS[method]
    states = [y0]
    for grid in grids:
        y = states[-1]
        for t, h in _steps(grid):
            y = _step(f, t, h, y, tableau)
        states.append(y)
    return states


def _steps(times: Iterable[float]) -> Iterator[tuple[float, float]]:
    return ((t, t_next - t) for t, t_next in itertools.pairwise(times))


def _step(f: RightHandSide, t: float, h: float, y: State, tableau: Tableau) -> State:
    slopes: list[State] = []
    for a, c in zip(tableau.a, tableau.c, strict=True):
        slopes.append(f(t + c * h, _moved(y, h, a, slopes)))
    return _moved(y, h, tableau.b, slopes)


def _moved(y: State, h: float, weights: Sequence[float], slopes: Sequence[State]) -> State:
    """Y + h sum_i weights_i slopes_i, component by component."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            y = tuple(x.add(k, alpha=h * weight) for x, k in zip(y, slope, strict=True))
    return y
