"""Solves whose steps torchdiffeq takes: with dense output, or by a multistep method."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nodebench.errors import Diverged, NotConverged, StepUnderflow
from nodebench.ode.adaptive.counts import StepCounts
from nodebench.ode.field import Norm
from nodebench.ode.fixed import Grid
from nodebench.ode.solution import NOT_FINITE, Solution
from nodebench.ode.steppers.stepper import RightHandSide, State
from nodebench.spec.solver import Solver


def dense_output(
    f: RightHandSide, y0: State, times: Sequence[float], solver: Solver, norm: Norm | None
) -> Solution:
    """Torchdiffeq's embedded Runge-Kutta methods, which interpolate between their steps.

    The last step ends at the last time. By default torchdiffeq steps past it, which costs accuracy
    and evaluates f beyond it.
    """
    options: dict[str, Any] = {"step_t": _tensor(times[-1:], y0)}
    if norm is not None:
        options["norm"] = norm
    watched = _Watched(f, is_backwards=times[-1] < times[0])
    states = _torchdiffeq(watched, y0, times, solver, options)
    return Solution(states, StepCounts(watched.accepted, watched.tried - watched.accepted))


class _Watched:
    """A right-hand side that checks each of torchdiffeq's steps before it is tried.

    Torchdiffeq's own checks are assertions, which `python -O` removes; a diverging solve would then
    never end.
    """

    def __init__(self, f: RightHandSide, *, is_backwards: bool):
        self._f, self._sign = f, -1 if is_backwards else 1
        self.tried = self.accepted = 0

    def __call__(self, t: float | Tensor, y: State) -> State:
        return self._f(t, y)

    def callback_step(self, t: Tensor, y: State, step: Tensor) -> None:
        """Rejects a non-finite state, and a step too small to advance time."""
        if not _is_finite(y) or step == 0:  # torchdiffeq turns a NaN step into 0
            raise Diverged(NOT_FINITE)
        start = self._sign * t
        if not start + step > start:
            raise StepUnderflow(f"the solver's step fell to {float(step):.1e}")
        self.tried += 1

    def callback_accept_step(self, _t: Tensor, _y: State, _step: Tensor) -> None:
        """Counts an accepted step."""
        self.accepted += 1


def multistep(
    f: RightHandSide, y0: State, times: Sequence[float], solver: Solver, _norm: Norm | None
) -> Solution:
    """Torchdiffeq's Adams method, restarted at each time and with equal steps.

    Its coefficients require equal steps, so a `step_size` is adjusted to divide the interval.
    """
    states, slope = [y0], y0

    def watched(t: float | Tensor, y: State) -> State:
        nonlocal slope
        slope = f(t, y)
        return slope

    for t0, t1 in itertools.pairwise(times):
        points = _tensor(list(Grid(t0, t1, solver.step_count(abs(t1 - t0)))), y0)
        options = {"grid_constructor": lambda _f, _y, _t, points=points: points}
        try:
            states.append(_torchdiffeq(watched, states[-1], (t0, t1), solver, options)[-1])
        except NotConverged as error:  # no iteration converges to inf or nan
            if _is_finite(slope):
                raise
            raise Diverged(NOT_FINITE) from error
    return Solution(states)


def _is_finite(state: State) -> bool:
    return bool(torch.stack([part.isfinite().all() for part in state]).all())


def _torchdiffeq(
    f: RightHandSide,
    y0: State,
    times: Sequence[float],
    solver: Solver,
    options: dict[str, Any],
) -> list[State]:
    from torchdiffeq import odeint  # takes a second

    rtol, atol = solver.tolerances
    t = _tensor(times, y0)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Functional iteration did not converge")
            out = odeint(f, y0, t, rtol=rtol, atol=atol, method=solver.method, options=options)
    except UserWarning as error:
        if not str(error).startswith("Functional iteration"):
            raise
        message = "the corrector's iteration did not converge: more steps or larger tol"
        raise NotConverged(message) from error
    return list(zip(*out, strict=True))


def _tensor(times: Sequence[float], like: State) -> Tensor:
    return torch.tensor(times, dtype=torch.float64, device=like[0].device)
