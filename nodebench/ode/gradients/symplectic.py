"""The gradient `symplectic`: the adjoint by the method that makes it exact, stage by stage.

For a Runge-Kutta method (a, b) the adjoint is solved by the partner method with coefficients
b_j − b_j a_ji / b_i, with which the pair conserves λᵀδ; if b_i = 0, by the paper's extension.
Expanded, with λ = dL/dy' and g_i = J_iᵀ l_i at stage i, both give

    l_i = h (b_i λ + sum_{j > i} a_ji g_j),    dL/dy = λ + sum_i g_i,

which is what backprop computes. Each stage is differentiated on its own, so that only one
evaluation's graph is in memory.

Source: Matsubara, Miyatake, Yaguchi 2021 (NeurIPS), theorem 2, equations 7 and 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nodebench.ode.field import Counted
from nodebench.ode.gradients.recorded_steps import RecordedStep
from nodebench.ode.gradients.replay import BackwardSolve, Replay, replayed
from nodebench.ode.steppers.runge_kutta import EmbeddedRungeKutta, RungeKutta
from nodebench.ode.steppers.stepper import Carry, State, moved
from nodebench.ode.tableau import Tableau
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver


def symplectic(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver, _gradient: Gradient
) -> list[Tensor]:
    """The states at `times`; a backward step evaluates each stage twice, but the last only once."""
    return replayed(f, y0, times, solver, Replay("symplectic", _by_stage))


def _by_stage(solve: BackwardSolve, step: RecordedStep[float], before: Carry, by: Carry) -> Carry:
    tableau, (y, *given) = _tableau(solve), before
    stages = _stages(solve, step, y, given)
    by_y, *by_carried = by
    last = len(tableau.b) - 1  # whose slope embedded methods carry to the next step
    by_stage: dict[int, State] = {}
    by_first: Carry = ()
    for i in reversed(range(len(tableau.b))):
        later = [(tableau.a[j][i], g) for j, g in by_stage.items()]
        weights, gradients = zip((tableau.b[i], by_y), *later, strict=True)
        is_carried = i == last and bool(by_carried)
        if not (any(weights) or is_carried):
            continue
        start = by_carried[0] if is_carried else tuple(map(torch.zeros_like, by_y))
        by_slope = moved(start, step.h, weights, gradients)
        if i < len(given):
            by_first = (by_slope,)
        else:
            by_stage[i] = _pulled(solve, stages[i - len(given)], by_slope)
    return moved(by_y, 1.0, [1.0] * len(by_stage), list(by_stage.values())), *by_first


class _Stage(NamedTuple):
    """An evaluation: its time and state, and the random number state before it."""

    t: float
    state: State
    draws: Tensor | None


def _stages(
    solve: BackwardSolve, step: RecordedStep[float], y: State, given: Sequence[State]
) -> list[_Stage]:
    """The evaluations of a step; the last one's slope is not needed."""
    tableau, slopes = _tableau(solve), list(given)
    stages: list[_Stage] = []
    for i in range(len(given), len(tableau.b)):
        if stages:
            slopes.append(solve.f(stages[-1].t, stages[-1].state))
        t, state = step.t + tableau.c[i] * step.h, moved(y, step.h, tableau.a[i], slopes)
        stages.append(_Stage(t, state, None if step.draws is None else solve.draws.state()))
    return stages


def _tableau(solve: BackwardSolve) -> Tableau:
    assert isinstance(solve.stepper, RungeKutta | EmbeddedRungeKutta)
    return solve.stepper.tableau


def _pulled(solve: BackwardSolve, stage: _Stage, by_slope: State) -> State:
    with solve.draws.back_at(stage.draws):
        (by,) = solve.pulled(lambda y: (solve.f(stage.t, y),), (stage.state,), (by_slope,))
    return by
