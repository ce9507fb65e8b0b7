"""A reference: the result of a solver with many steps in float64, and an estimate of its error.

It stands for the ODE itself. An error is reported only if it is well above the reference's own.
If you change how errors are measured, increment `ERRORS_RULE` in `store/rows.py`.
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
"""An error is reported if it is at least this many times the reference's own."""
GROWTH = 4
"""The factor by which a reference's steps grow if it is too coarse to measure an error."""
ROUNDING = 1e-14
"""The smallest relative error that a reference is assumed to have, however small it seems."""


class Reference:
    """The result of a solver with many steps, as one vector, and an estimate of its error.

    The estimate is the distance from the result with half the steps. By Richardson, it exceeds the
    error: by a factor of 15 for classic Runge-Kutta in a smooth field, and less at a ReLU's kinks.
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
        """The relative error of a result; None if the reference is too inaccurate to measure it.

        If necessary, the reference takes more steps first.
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
    """The distance of a result from the expected one, relative to the latter's norm."""
    return float((found - expected).norm() / expected.norm())


def in_double(model: nn.Module) -> nn.Module:
    """A copy in float64 that accepts float32 inputs and has no limit on evaluations."""
    twin = copy.deepcopy(model).double()
    twin.register_forward_pre_hook(lambda _module, inputs: tree_map(widened, inputs))
    for block in ode_blocks(twin):
        block.max_evaluations = None
    return twin


def widened(value: Any) -> Any:
    """A tensor of real numbers in float64, and anything else as it is."""
    return value.double() if is_real(value) else value


def is_real(value: Any) -> bool:
    """Whether a value is a tensor of real numbers."""
    return isinstance(value, Tensor) and value.is_floating_point()
