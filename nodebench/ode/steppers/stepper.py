"""The interface of a method that takes given steps, one at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from torch import Tensor

State: TypeAlias = tuple[Tensor, ...]
"""The state of an ODE: tensors of any shapes."""

RightHandSide: TypeAlias = Callable[[float | Tensor, State], State]
"""f(t, y) -> dy/dt."""

Carry: TypeAlias = tuple[State, ...]
"""The states that a method carries from one step to the next, the solution first."""

CarryType = TypeVar("CarryType", bound=Carry)
TimeType = TypeVar("TimeType", float, Tensor)


class Stepper(ABC, Generic[TimeType, CarryType]):
    """A method that takes given steps, one at a time.

    It carries a `CarryType` from step to step: a Runge-Kutta method only the solution, and others
    also a slope or a second solution. Times and step sizes are numbers, or tensors [batch] if each
    sample has its own.
    """

    @abstractmethod
    def start(self, f: RightHandSide, t: float, y: State, /) -> CarryType:
        """The carry for the first step."""

    @abstractmethod
    def step(self, f: RightHandSide, t: TimeType, h: TimeType, carry: CarryType, /) -> CarryType:
        """The carry after a step from t to t + h."""


AnyStepper: TypeAlias = Stepper[Any, Any]
"""The stepper of a solver that is known only at run time."""


def moved(y: State, h: float, weights: Sequence[float], slopes: Sequence[State]) -> State:
    """Returns y + h sum_i weights_i slopes_i, component by component."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            y = tuple(x.add(k, alpha=h * weight) for x, k in zip(y, slope, strict=True))
    return y
