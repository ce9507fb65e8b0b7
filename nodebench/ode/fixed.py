"""Solves on a grid of Python floats.

The number of steps is an integer and times never become tensors, so a solve needs no host
synchronisation and its evaluations are steps x stages exactly.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nodebench.ode.steppers.stepper import CarryType, RightHandSide, State, Stepper
from nodebench.spec.solver import Solver


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


def grids_between(times: Sequence[float], solver: Solver) -> list[Grid]:
    """The grid of times from each output time to the next."""
    return [
        Grid(t0, t1, solver.step_count(abs(t1 - t0)), solver.step_size)
        for t0, t1 in itertools.pairwise(times)
    ]


def steps(times: Iterable[float]) -> Iterator[tuple[float, float]]:
    """The steps (t, h) of a grid."""
    return ((t, t_next - t) for t, t_next in itertools.pairwise(times))


def integrate(
    f: RightHandSide,
    y0: State,
    grids: Iterable[Iterable[float]],
    stepper: Stepper[float, CarryType],
) -> list[State]:
    """The states at the start of the first grid and at the end of each.

    `grids` holds one grid of times per interval, each starting where the one before ends.
    """
    states = [y0]
    carry: CarryType | None = None
    for grid in grids:
        for t, h in steps(grid):
            carry = stepper.step(f, t, h, stepper.start(f, t, y0) if carry is None else carry)
        states.append(y0 if carry is None else carry[0])
    return states
