"""What a solver returns."""

from __future__ import annotations

from typing import NamedTuple

from nodebench.ode.adaptive.counts import StepCounts
from nodebench.ode.steppers.stepper import State


class Solution(NamedTuple):
    """The states at the output times, and the step counts if the solver chose and counted steps."""

    states: list[State]
    counts: StepCounts | None = None
