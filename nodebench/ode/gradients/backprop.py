"""The gradient `backprop`: automatic differentiation through a solver's steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from nodebench.ode.dense.field import DenseField, has_compiled_steps, is_compiled
from nodebench.ode.field import Counted, OverStates
from nodebench.ode.fixed import RungeKutta, Stepper, integrate, steps
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
    if is_compiled(f.module, y0) and isinstance(stepper, RungeKutta):
        return _dense(f, y0, grids, stepper)
    with weights_made_once():
        states = integrate(OverStates(f), (y0,), grids, stepper)
    return [y for (y,) in states]


def _dense_controlled(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver
) -> list[Tensor]:
    from nodebench.ode.dense.adaptive import ControlledSteps
    from nodebench.ode.dense.solve import dense_solve

    assert isinstance(f.module, DenseField)
    return [y0, *dense_solve(f.module, y0, ControlledSteps(f, y0, times, solver))]


def _dense(
    f: Counted, y0: Tensor, grids: Iterable[Iterable[float]], stepper: RungeKutta
) -> list[Tensor]:
    from nodebench.ode.dense.solve import FixedSteps, dense_solve  # numba takes a second

    assert isinstance(f.module, DenseField)
    sizes: list[float] = []
    outputs: list[int] = []
    for number, grid in enumerate(grids):
        sizes += [h for _, h in steps(grid)]
        outputs += [-1] * (len(sizes) - len(outputs) - 1) + [number]
    f.on_evaluations(len(sizes) * len(stepper.tableau.b))
    return [y0, *dense_solve(f.module, y0, FixedSteps(stepper.tableau, sizes, outputs))]
