"""The gradient `backprop`: automatic differentiation through a solver's steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from nodebench.ode.dense import DenseField, dense_solve
from nodebench.ode.field import Counted
from nodebench.ode.fixed import TABLEAUS, integrate
from nodebench.ode.per_solve import weights_settled
from nodebench.ode.solve import grids, solve
from nodebench.solver_settings import Gradient, Solver


def backprop(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver, _gradient: Gradient
) -> list[Tensor]:
    """The states at `times`; without autograd, the plain solve of every gradient method."""
    if solver.method in TABLEAUS:
        return solve_on(grids(times, solver), f, y0, solver.method)
    with weights_settled():
        states = solve(lambda t, y: (f(t, y[0]),), (y0,), times, solver)
    return [y for (y,) in states]


def solve_on(grids: Iterable[Iterable[float]], f: Counted, y0: Tensor, method: str) -> list[Tensor]:
    """The states at the start of the first grid and at the end of each, by a fixed method."""
    is_short = torch.is_autocast_enabled(y0.device.type)
    if isinstance(f.module, DenseField) and torch.is_grad_enabled() and not is_short:
        return dense_solve(f.module, y0, grids, TABLEAUS[method], f.on_evaluation)
    with weights_settled():
        states = integrate(lambda t, y: (f(t, y[0]),), (y0,), grids, method)
    return [y for (y,) in states]
