"""The gradient `backprop`: automatic differentiation through a solver's steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from nodebench.ode.dense.field import DenseField, has_compiled_steps, is_compiled
from nodebench.ode.field import Counted, Field, OverStates
from nodebench.ode.fixed import RungeKutta, Stepper, integrate
from nodebench.ode.solve import grids, solve
from nodebench.ode.steppers import stepper_of
from nodebench.ode.weight_cache import weights_made_once
from nodebench.spec.solver import Gradient, Solver


def backprop(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver, _gradient: Gradient
) -> list[Tensor]:
    """The states at `times`; without autograd, the plain solve of every gradient method."""
    if solver.facts.kind == "fixed":
        return solve_on(grids(times, solver), f, y0, stepper_of(solver))
    if is_compiled(f.module, y0) and has_compiled_steps(solver):
        return _dense_controlled(f, y0, times, solver)
    with weights_made_once():
        states = solve(OverStates(f), (y0,), times, solver, f.norm)
    return [y for (y,) in states]


def solve_on(
    grids: Iterable[Iterable[float]], f: Counted, y0: Tensor, stepper: Stepper
) -> list[Tensor]:
    """The states at the start of the first grid and at the end of each, by a fixed method."""
    with weights_made_once():
        if isinstance(f.module, Field) and isinstance(stepper, RungeKutta):
            solve_all = f.module.whole_solve(y0)
            if solve_all:
                return [y0, *solve_all(y0, grids, stepper.tableau, f.on_evaluations)]
        states = integrate(OverStates(f), (y0,), grids, stepper)
    return [y for (y,) in states]


def _dense_controlled(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver
) -> list[Tensor]:
    from nodebench.ode.dense.adaptive import ControlledSteps
    from nodebench.ode.dense.solve import dense_solve

    assert isinstance(f.module, DenseField)
    return [y0, *dense_solve(f.module, y0, ControlledSteps(f, y0, times, solver))]
