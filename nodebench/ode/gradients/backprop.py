"""The gradient `backprop`: automatic differentiation through a solver's steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from torch import Tensor

from nodebench.ode.adaptive.controlled import controlled
from nodebench.ode.field import Counted, Field, OverStates, WholeSolve
from nodebench.ode.fixed import grids_between, integrate
from nodebench.ode.solve import solve
from nodebench.ode.steppers.runge_kutta import RungeKutta
from nodebench.ode.steppers.stepper import AnyStepper
from nodebench.ode.steppers.table import stepper_of
from nodebench.ode.weight_cache import weights_made_once
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver


def backprop(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver, _gradient: Gradient
) -> list[Tensor]:
    """The states at `times`; with autograd off, the plain solve of every gradient method."""
    if solver.stepping == "fixed":
        return solve_on(grids_between(times, solver), f, y0, stepper_of(solver))
    with weights_made_once():
        is_plain = solver.stepping == "embedded" and not solver.by_sample and f.norm is None
        if is_plain and f.on_step is None and (whole := _whole_solve(f, y0)):
            return [y0, *whole.controlled(f, y0, times, solver)]
        steps = partial(controlled, on_step=f.on_step) if f.on_step else solve
        states, counts = steps(OverStates(f), (y0,), times, solver, f.norm)
    if counts is not None:
        f.on_counts(counts)
    return [y for (y,) in states]


def solve_on(
    grids: Iterable[Iterable[float]], f: Counted, y0: Tensor, stepper: AnyStepper
) -> list[Tensor]:
    """The states at the start of the first grid and at the end of each, by a fixed method."""
    with weights_made_once():
        if isinstance(stepper, RungeKutta) and (whole := _whole_solve(f, y0)):
            return [y0, *whole.on_grids(f, y0, grids, stepper.tableau)]
        states = integrate(OverStates(f), (y0,), grids, stepper)
    return [y for (y,) in states]


def _whole_solve(f: Counted, y0: Tensor) -> WholeSolve | None:
    return f.module.whole_solve(y0) if isinstance(f.module, Field) else None
