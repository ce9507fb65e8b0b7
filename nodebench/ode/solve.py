"""One call for every solver method: ours on a fixed grid, torchdiffeq's otherwise."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchdiffeq import odeint

from nodebench.errors import Diverged, NotConverged, StepUnderflow
from nodebench.ode.fixed import TABLEAUS, RightHandSide, State, grid, integrate
from nodebench.spec import Solver

Norm = Callable[[State], Tensor]

TORCHDIFFEQ = {
    "adaptive_heun", "bosh3", "dopri5", "dopri8", "fehlberg2", "implicit_adams", "scipy_solver"
}  # fmt: skip


def solve(
    f: RightHandSide, y0: State, times: Sequence[float], solver: Solver, norm: Norm | None = None
) -> list[State]:
    """The solution of dy/dt = f(t, y), y(times[0]) = y0, at each of `times`.

    Times increase or decrease strictly. `norm` measures errors for adaptive methods; by default
    it is the largest root mean square among the tensors of the state.

    Raises:
        NotConverged: an implicit method's iteration gave up.
        StepUnderflow: the error control asked for steps below the resolution of time.
        Diverged: an adaptive solver met a state that is not finite. (A fixed-step solve returns
            it: checking would synchronise with the device at every step.)
    """
    if solver.method in TABLEAUS:
        return integrate(f, y0, _grids(times, solver), solver.method)
    return _torchdiffeq(f, y0, times, solver, norm)


def _grids(times: Sequence[float], solver: Solver) -> list[list[float]]:
    return [
        grid(t0, t1, solver.step_count(abs(t1 - t0)), solver.step_size)
        for t0, t1 in itertools.pairwise(times)
    ]


def _torchdiffeq(
    f: RightHandSide, y0: State, times: Sequence[float], solver: Solver, norm: Norm | None
) -> list[State]:
    rtol, atol = solver.tolerances
    options: dict[str, Any] = {}
    if solver.method == "scipy_solver":
        options["solver"] = solver.scipy
    elif solver.facts.kind == "multistep":
        points = [times[0], *(t for piece in _grids(times, solver) for t in piece[1:])]
        options["grid_constructor"] = lambda _f, y, _t: torch.tensor(
            points, dtype=torch.float64, device=y.device
        )
    elif norm is not None:
        options["norm"] = norm
    t = torch.tensor(times, dtype=torch.float64, device=y0[0].device)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Functional iteration did not converge")
            out = odeint(f, y0, t, rtol=rtol, atol=atol, method=solver.method, options=options)
    except (AssertionError, UserWarning) as error:
        raise _failure(error) from error
    return list(zip(*out, strict=True))


def _failure(error: Exception) -> Exception:
    """What torchdiffeq's assertions and warning mean; any other is a bug, and stays."""
    text = str(error)
    if text.startswith("Functional iteration"):
        return NotConverged("the corrector's iteration did not converge: more steps or larger tol")
    if text.startswith(("underflow in dt nan", "non-finite values")):
        return Diverged("a state of the solve is not finite")
    if match := re.match(r"underflow in dt (\S+)", text):
        return StepUnderflow(f"the solver's step fell to {float(match[1]):.1e}")
    return error
