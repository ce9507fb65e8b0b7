"""A reference: the result of a solver with many steps in float64, and an estimate of its error.

It stands for the ODE itself. An error is reported only if it is well above the reference's own.
If you change how errors are measured, increment `ERRORS_RULE` in `store/rows.py`.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from nodebench.spec.solver import Solver

NEAR = 10
"""An error is reported if it is at least this many times the reference's own."""
GROWTH = 4
"""The factor by which a reference's steps grow if it is too coarse to measure an error."""
ROUNDING = 1e-14
"""The smallest relative error that a reference is assumed to have, however small it seems."""


@dataclass(frozen=True)
class _Level:
    """A reference with some number of steps: its result, and an estimate of its relative error."""

    solver: Solver
    value: Tensor
    own_error: float


class Reference:
    """The result of a solver with many steps, as one vector, and an estimate of its error.

    The estimate is the distance from the result with half the steps. By Richardson, it exceeds the
    error: by a factor of 15 for classic Runge-Kutta in a smooth field, and less at a ReLU's kinks.

    Results that are too close to it are compared with references of more steps. Each is compared
    with the coarsest reference that suffices, so that no error depends on what was measured before.
    """

    def __init__(self, found: Callable[[Solver], Tensor], solver: Solver, growth: int):
        self._found, self._most = found, growth * (solver.steps or 1)
        self._levels = [self._level(solver)]

    @property
    def value(self) -> Tensor:
        """The result with the fewest steps."""
        return self._levels[0].value

    def _level(self, solver: Solver) -> _Level:
        value = self._found(solver)
        half = self._found(_with_steps(solver, max(1, (solver.steps or 0) // 2)))
        return _Level(solver, value, max(ROUNDING, relative_distance(half, value)))

    def error(self, found: Tensor) -> float | None:
        """The relative error of a result; None if no reference is accurate enough to measure it."""
        for level in self._finer_and_finer():
            error = relative_distance(found, level.value)
            if not math.isfinite(error):
                return None
            if error >= NEAR * level.own_error:
                return error
        return None

    def _finer_and_finer(self) -> Iterator[_Level]:
        """The references from the coarsest on; new ones are made as they are needed."""
        for number in itertools.count():
            if number == len(self._levels):
                last = self._levels[-1]
                steps = GROWTH * (last.solver.steps or 1)
                if last.own_error == ROUNDING or steps > self._most:
                    return
                self._levels.append(self._level(_with_steps(last.solver, steps)))
            yield self._levels[number]


def _with_steps(solver: Solver, steps: int) -> Solver:
    """The same method with this number of steps."""
    return solver.model_copy(update={"steps": steps, "step_size": None})


def relative_distance(found: Tensor, expected: Tensor) -> float:
    """The distance of a result from the expected one, relative to the latter's norm."""
    return float((found - expected).norm() / expected.norm())


def in_double(model: nn.Module) -> nn.Module:
    """A copy in float64 that accepts float32 inputs."""
    twin = copy.deepcopy(model).double()
    twin.register_forward_pre_hook(lambda _module, inputs: tree_map(widened, inputs))
    return twin


def widened(value: Any) -> Any:
    """A tensor of real numbers in float64, and anything else as it is."""
    return value.double() if is_real(value) else value


def is_real(value: Any) -> bool:
    """Whether a value is a tensor of real numbers."""
    return isinstance(value, Tensor) and value.is_floating_point()
