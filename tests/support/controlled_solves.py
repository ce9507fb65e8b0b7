"""Solves with a `control` of their steps, and fields that need different steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nodebench.ode.adaptive.counts import StepCounts
from nodebench.ode.block import ODEBlock, one_pass
from nodebench.ode.field import Field as OwnField
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from tests.support.tiny_fields import Field, start

TIMES = [(0.0, 1.0), (0.0, 0.3, 0.5, 1.0), (1.0, 0.5, 0.0)]


def by(step: str, method: str = "dopri5", tol: float = 1e-5, **control: object) -> Solver:
    return Solver(method=method, tol=tol, control={"step": step, **control})


def solved(
    solver: Solver, y0: Tensor, times: Sequence[float] = (0.0, 1.0), field: type[nn.Module] = Field
) -> tuple[Tensor, int, StepCounts]:
    block = ODEBlock(field(), solver, Gradient())
    with torch.no_grad(), one_pass(block) as counts:
        states = block.trajectory(y0.detach(), times)
    assert counts.steps is not None
    return states, counts.nfe, counts.steps


def uneven() -> Tensor:
    """A batch of samples that need different steps."""
    return start(5).detach() * torch.tensor([[0.1], [1.0], [2.0], [5.0], [20.0]]).double()


class Turning(Field):
    """A field whose speed changes in time, by more than a growing step expects."""

    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        return super().forward(t, y) * (1 + 10 * torch.exp(-200 * (torch.as_tensor(t) - 0.5) ** 2))


class Stiff(OwnField):
    """y' = -rate y, the first component, for the second."""

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        rate, value = y.unbind(1)
        return torch.stack((torch.zeros_like(rate), -rate * value), 1)
