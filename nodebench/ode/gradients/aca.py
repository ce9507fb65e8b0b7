"""The gradient `aca`, the adaptive checkpoint adjoint: backprop through the accepted steps.

The solve keeps the state before each step that it accepts. The backward pass repeats each of these
steps and differentiates it on its own. Only one step's graph is in memory, and the search for step
sizes does not contribute to the gradient.

Source: Zhuang et al. 2020 (ICML), algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nodebench.ode.field import Counted
from nodebench.ode.gradients.recorded_steps import RecordedStep
from nodebench.ode.gradients.replay import BackwardSolve, Replay, replayed
from nodebench.ode.steppers.stepper import Carry
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver


def aca(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver, _gradient: Gradient
) -> list[Tensor]:
    """The states at `times`; the backward pass takes as many evaluations as the accepted steps."""
    return replayed(f, y0, times, solver, Replay("aca", whole_step))


def whole_step(solve: BackwardSolve, step: RecordedStep[Any], before: Carry, by: Carry) -> Carry:
    """Differentiates a whole step at once."""
    return solve.pulled(
        lambda *carry: solve.stepper.step(solve.f, step.t, step.h, carry), before, by
    )
