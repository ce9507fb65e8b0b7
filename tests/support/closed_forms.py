"""Networks whose solutions are known in closed form, and a task for them."""

from __future__ import annotations

import math
from statistics import linear_regression

import torch
from torch import Tensor, nn

from nodebench.ode.block import ODEBlock
from nodebench.ode.field import Field
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from nodebench.training.task import Loss

ADJOINT, BACKPROP = Gradient(name="adjoint"), Gradient(name="backprop")
DECAY = 0.7
REFERENCE = Solver(method="rk4", steps=256)
COARSE = Solver(method="rk4", steps=8)
"""A reference for tests of something else."""


def euler(steps: int) -> Solver:
    return Solver(method="euler", steps=steps)


class Linear(Field):
    """f(y) = -a y."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(DECAY))

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        return -self.a * y


class Lively(Field):
    """dy/dt = a cos(20 t) y, so that y(1) = y(0) exp(a sin(20) / 20)."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(6.0))

    def forward(self, t: float, y: Tensor) -> Tensor:
        return self.a * math.cos(20 * t) * y


class Regression:
    """A task whose loss is half the squared norm of the output."""

    device = torch.device("cpu")

    def sample(self, size: int) -> Tensor:
        return torch.linspace(1, 2, size).unsqueeze(1)

    def loss(self, model: nn.Module, batch: Tensor) -> Loss:
        return Loss(model(batch).square().sum() / 2, len(batch), {})


def network(*fields: nn.Module) -> nn.Sequential:
    blocks = [ODEBlock(f, euler(2), BACKPROP) for f in fields or (Linear(),)]
    return nn.Sequential(*blocks)


def slope(points: list[tuple[float, float]]) -> float:
    return linear_regression(*zip(*points, strict=True)).slope
