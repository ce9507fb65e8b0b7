"""A reference: what a solver of many steps finds in float64, and how far that is from the truth.

It stands for the ODE itself. An error that is not well above the reference's own is not told.
Whoever changes how errors are measured raises `ERRORS_RULE` in `store/rows.py`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from nodebench.ode.block import ode_blocks
from nodebench.spec.solver import Solver

NEAR = 10
"""An error is reported if it is this many times the reference's own."""
GROWTH = 4
"""The factor by which a reference's steps grow where it is too coarse to measure an error."""
ROUNDING = 1e-14
"""The least relative error that a reference is credited with, however small it seems."""


class Reference:
    """What a solver of many steps finds, as one vector, and how far that is from the truth.

    Its own error is taken to be what half its steps change, which is more, by Richardson: 15 times
    as much for Runge-Kutta in a smooth field, and less at the kinks of a ReLU's.
    """

    def __init__(self, found: Callable[[Solver], Tensor], solver: Solver, growth: int):
        self._found, self._most = found, growth * (solver.steps or 1)
        self._take(solver)

    def _take(self, solver: Solver) -> None:
        value = self._found(solver)
        half = self._found(_with_steps(solver, max(1, (solver.steps or 0) // 2)))
        self.solver, self.value = solver, value
        self.own_error = max(ROUNDING, relative_distance(half, value))

    def error(self, found: Tensor) -> float | None:
        """The relative error of what was found; None where the reference cannot tell it.

        If need be, the reference takes more steps first.
        """
        while math.isfinite(error := relative_distance(found, self.value)):
            if error >= NEAR * self.own_error:
                return error
            steps = GROWTH * (self.solver.steps or 1)
            if self.own_error == ROUNDING or steps > self._most:
                break
            self._take(_with_steps(self.solver, steps))
        return None


def _with_steps(solver: Solver, steps: int) -> Solver:
    """The same method with this number of steps."""
    return solver.model_copy(update={"steps": steps, "step_size": None})


def relative_distance(found: Tensor, expected: Tensor) -> float:
    """The relative distance of what was found."""
    return float((found - expected).norm() / expected.norm())


def in_double(model: nn.Module) -> nn.Module:
    """A copy in float64, which takes float32 inputs and may evaluate as often as it needs to."""
    twin = copy.deepcopy(model).double()
    twin.register_forward_pre_hook(lambda _module, inputs: tree_map(widened, inputs))
    for block in ode_blocks(twin):
        block.max_evaluations = None
    return twin


def widened(value: Any) -> Any:
    """A tensor of real numbers in float64, and anything else as it is."""
    return value.double() if is_real(value) else value


def is_real(value: Any) -> bool:
    """Whether it is a tensor of real numbers."""
    return isinstance(value, Tensor) and value.is_floating_point()
