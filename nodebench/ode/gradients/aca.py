"""The gradient `aca`, the adaptive checkpoint adjoint: backprop through the steps that were taken.

The solve keeps the state before each step that it accepts. The backward pass takes each of these
steps again and differentiates it alone, so that one step's graph is in memory, and the search for
a step size has no part in the gradient.

Source: Zhuang et al. 2020 (ICML), algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nodebench.ode.field import Counted
from nodebench.ode.fixed import Carry
from nodebench.ode.gradients.recorded_steps import RecordedStep
from nodebench.ode.gradients.replay import BackwardSolve, replayed
from nodebench.spec.solver import Gradient, Solver


def aca(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver, _gradient: Gradient
) -> list[Tensor]:
    """The states at `times`; the backward pass takes as many evaluations as the steps have."""
    return replayed(f, y0, times, solver, whole_step, "aca")


def whole_step(solve: BackwardSolve, step: RecordedStep, by: Carry) -> Carry:
    """Differentiates a step at once."""
    return solve.pulled(
        lambda *carry: solve.stepper.step(solve.f, step.t, step.h, carry), step.before, by
    )
