"""The gradient `backprop`: automatic differentiation through a solver's steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from nodebench.ode.dense import DenseField, dense_solve
from nodebench.ode.field import Counted, OverStates
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
    with weights_made_once():
        states = solve(OverStates(f), (y0,), times, solver, f.norm)
    return [y for (y,) in states]


def solve_on(
    grids: Iterable[Iterable[float]], f: Counted, y0: Tensor, stepper: Stepper
) -> list[Tensor]:
    """The states at the start of the first grid and at the end of each, by a fixed method."""
    is_plain = torch.is_grad_enabled() and not torch.is_autocast_enabled(y0.device.type)
    if is_plain and isinstance(f.module, DenseField) and isinstance(stepper, RungeKutta):
        return dense_solve(f.module, y0, grids, stepper.tableau, f.on_evaluation)
    with weights_made_once():
        states = integrate(OverStates(f), (y0,), grids, stepper)
    return [y for (y,) in states]
