"""Solves whose steps SciPy takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nodebench.errors import Diverged, StepUnderflow
from nodebench.ode.field import Norm
from nodebench.ode.solution import NOT_FINITE, Solution
from nodebench.ode.steppers.stepper import RightHandSide, State
from nodebench.spec.solver import Solver


def by_scipy(
    f: RightHandSide, y0: State, times: Sequence[float], solver: Solver, _norm: Norm | None
) -> Solution:
    """SciPy's `solve_ivp`, on the CPU in float64 and without automatic differentiation."""
    from scipy.integrate import solve_ivp  # takes a second

    shapes, sizes = [y.shape for y in y0], [y.numel() for y in y0]

    def to_state(flat: np.ndarray[Any, Any]) -> State:
        parts = torch.split(torch.from_numpy(flat.copy()), sizes)
        return tuple(p.view(s).to(y0[0]) for p, s in zip(parts, shapes, strict=True))

    def to_flat(state: State) -> np.ndarray[Any, Any]:
        flat: np.ndarray[Any, Any] = (
            torch.cat([y.reshape(-1) for y in state]).double().cpu().numpy()
        )
        if not np.isfinite(flat).all():  # some methods would search for a step forever
            raise Diverged(NOT_FINITE)
        return flat

    rtol, atol = solver.tolerances
    with torch.no_grad():
        found = solve_ivp(
            lambda t, y: to_flat(f(float(t), to_state(y))),
            (times[0], times[-1]), to_flat(y0), solver.scipy, times, rtol=rtol, atol=atol,
        )  # fmt: skip
    if not found.success:
        raise StepUnderflow(f"scipy's {solver.scipy}: {found.message}")
    return Solution([to_state(y) for y in found.y.T])
