"""ODEs with closed-form solutions, in float64, and right-hand sides for tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Problem:
    """dy/dt = f(t, y) from y(0) = y0, and its exact solution."""

    name: str
    f: Callable[[float | Tensor, Tensor], Tensor]
    y0: Tensor
    exact: Callable[[float], Tensor]


def _vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


OMEGA = 2.0
GENERATOR = torch.tensor([[0.0, -OMEGA], [OMEGA, 0.0]], dtype=torch.float64)

DECAY = Problem(
    "decay",
    f=lambda _t, y: -0.7 * y,
    y0=_vector(1.0, -2.0),
    exact=lambda t: _vector(1.0, -2.0) * math.exp(-0.7 * t),
)
ROTATION = Problem(
    "rotation",
    f=lambda _t, y: GENERATOR @ y,
    y0=_vector(1.0, 0.5),
    exact=lambda t: torch.linalg.matrix_exp(GENERATOR * t) @ _vector(1.0, 0.5),
)
TIME_DEPENDENT = Problem(
    "time-dependent",
    f=lambda t, y: (1.5 * t - 0.3) * y,
    y0=_vector(0.5, 1.0),
    exact=lambda t: _vector(0.5, 1.0) * math.exp(0.75 * t**2 - 0.3 * t),
)
LOGISTIC = Problem(
    "logistic",
    f=lambda _t, y: 2 * y * (1 - y),
    y0=_vector(0.1, 0.3, 1.6),
    exact=lambda t: 1 / (1 + (1 / _vector(0.1, 0.3, 1.6) - 1) * math.exp(-2 * t)),
)
PROBLEMS = (DECAY, ROTATION, TIME_DEPENDENT, LOGISTIC)


class Counted:
    """A right-hand side that counts its calls."""

    def __init__(self, f: Callable[[float | Tensor, Tensor], Tensor]) -> None:
        self.f, self.calls = f, 0

    def __call__(self, t: float | Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.calls += 1
        return (self.f(t, state[0]),)


class Decay(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate, dtype=torch.float64))

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        return -self.rate * y
