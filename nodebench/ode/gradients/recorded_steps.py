"""The steps that a solve took, for gradients that repeat them one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeAlias

import torch
from torch import Tensor

from nodebench.ode.adaptive.controlled import ControlledSolve
from nodebench.ode.field import Counted, OverStates
from nodebench.ode.fixed import grids_between, steps
from nodebench.ode.gradients.random_state import Generator, is_random
from nodebench.ode.steppers.stepper import Carry, RightHandSide, State, Stepper, TimeType
from nodebench.ode.steppers.table import stepper_of
from nodebench.ode.weight_cache import weights_made_once
from nodebench.spec.solver import Solver


class RecordedStep(NamedTuple, Generic[TimeType]):
    """A step from t to t + h: the carry before it, and the random number state before it.

    Either is None if it is not kept. With steps per sample, t and h have shape [batch], and a
    waiting sample has a step of size 0.
    """

    t: TimeType
    h: TimeType
    before: Carry | None
    draws: Tensor | None


class Trace(NamedTuple, Generic[TimeType]):
    """A solve without a graph: its steps from each output time to the next."""

    stepper: Stepper[TimeType, Any]
    intervals: list[list[RecordedStep[TimeType]]]
    states: list[Tensor]
    """The states at the output times."""

    end: Carry
    """The method's final carry."""

    draws: Tensor | None
    """The random number state before the first step, or None."""


Keep: TypeAlias = Callable[[float, float], bool]
"""Whether to keep the carry before a step (t, h)."""


def always(_t: float, _h: float) -> bool:
    """Keeps the carry before every step."""
    return True


def never(_t: float, _h: float) -> bool:
    """Keeps nothing, for steps that can be reversed."""
    return False


@torch.no_grad()
def traced(
    f: Counted,
    y0: Tensor,
    times: Sequence[float],
    solver: Solver,
    keep: Keep = always,
) -> Trace[Any]:
    """Solves an ODE and records its steps: the steps of its grid, or the accepted ones."""
    draws = Generator(y0).state if is_random(f.module, times[0], y0) else lambda: None
    with weights_made_once():
        if solver.stepping == "fixed":
            return _on_grids(OverStates(f), y0, times, solver, draws, keep)
        return _controlled(f, y0, times, solver, keep)


def _on_grids(
    f: RightHandSide,
    y0: Tensor,
    times: Sequence[float],
    solver: Solver,
    draws: Callable[[], Tensor | None],
    keep: Keep,
) -> Trace[float]:
    stepper, first_draws = stepper_of(solver), draws()
    carry = stepper.start(f, times[0], (y0,))
    intervals: list[list[RecordedStep[float]]] = []
    states = [y0]
    for grid in grids_between(times, solver):
        taken = []
        for t, h in steps(grid):
            taken.append(RecordedStep(t, h, carry if keep(t, h) else None, draws()))
            carry = stepper.step(f, t, h, carry)
        intervals.append(taken)
        states.append(carry[0][0])
    return Trace(stepper, intervals, states, carry, first_draws)


def _controlled(
    f: Counted,
    y0: Tensor,
    times: Sequence[float],
    solver: Solver,
    keep: Keep,
) -> Trace[Any]:
    """The accepted steps of an adaptive solver, for which f draws no random numbers."""
    taken = list[RecordedStep[Any]]()

    def note(t: Tensor, h: Tensor, y: State, slope: State) -> None:
        if solver.by_sample:
            taken.append(RecordedStep(t, h, (y, slope), None))
            return
        when, size = t.item(), h.item()
        taken.append(RecordedStep(when, size, (y, slope) if keep(when, size) else None, None))

    solve = ControlledSolve(OverStates(f), solver, times, f.norm, note)
    at = solve.start((y0,))
    intervals, states = list[list[RecordedStep[Any]]](), [y0]
    for end in times[1:]:
        at = solve.reach(end, at)
        intervals.append(taken.copy())
        taken.clear()
        states.append(at.y[0])
    f.on_counts(solve.counts())
    return Trace(stepper_of(solver), intervals, states, (at.y, at.slope), None)
