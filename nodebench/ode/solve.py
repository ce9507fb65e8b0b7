"""One call for every solver method, whoever takes its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from nodebench.ode.adaptive.controlled import controlled
from nodebench.ode.by_scipy import by_scipy
from nodebench.ode.by_torchdiffeq import dense_output, multistep
from nodebench.ode.field import Norm
from nodebench.ode.fixed import grids_between, integrate
from nodebench.ode.solution import Solution
from nodebench.ode.steppers.stepper import RightHandSide, State
from nodebench.ode.steppers.table import stepper_of
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import Stepping


def solve(
    f: RightHandSide, y0: State, times: Sequence[float], solver: Solver, norm: Norm | None = None
) -> Solution:
    """The solution of dy/dt = f(t, y), y(times[0]) = y0, at each of `times`.

    Times must be strictly increasing or strictly decreasing. `norm` measures errors for adaptive
    methods; by default it is the largest root mean square among the tensors of the state.

    Raises:
        NotConverged: an implicit method's iteration did not converge.
        StepUnderflow: the error control asked for steps below the resolution of time.
        Diverged: an adaptive solver reached a non-finite state. (A fixed-step solve returns such
            a state: checking would synchronise with the device at every step.)
    """
    return SOLVES[solver.stepping](f, y0, times, solver, norm)


def _on_grids(
    f: RightHandSide, y0: State, times: Sequence[float], solver: Solver, _norm: Norm | None
) -> Solution:
    return Solution(integrate(f, y0, grids_between(times, solver), stepper_of(solver)))


SolveMethod: TypeAlias = Callable[
    [RightHandSide, State, Sequence[float], Solver, Norm | None], Solution
]
"""(f, y0, times, solver, norm) -> the states at times, and the step counts."""

SOLVES: dict[Stepping, SolveMethod] = {
    "fixed": _on_grids,
    "embedded": controlled,
    "dense_output": dense_output,
    "multistep": multistep,
    "scipy": by_scipy,
}


def least_evaluations(times: Sequence[float], solver: Solver) -> int:
    """A lower bound on a solve's evaluations of f: exact for fixed methods, 0 for adaptive ones."""
    if solver.facts.kind == "adaptive":
        return 0
    steps = sum(grid.steps for grid in grids_between(times, solver))
    return solver.facts.start + steps * (solver.stages or 1)
