"""What a solver returns, and what it says if there is no solution."""

from __future__ import annotations

from typing import NamedTuple

from nodebench.ode.adaptive.counts import StepCounts
from nodebench.ode.steppers.stepper import State

NOT_FINITE = "the right-hand side is inf or nan"
"""Why a solve ends, in the words of every solver that notices it."""


class Solution(NamedTuple):
    """The states at the output times, and the step counts if the solver chose and counted steps."""

    states: list[State]
    counts: StepCounts | None = None
