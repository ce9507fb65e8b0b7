"""A small right-hand side in float64, and the gradients of a loss through its solve."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nodebench.ode.block import ODEBlock
from nodebench.ode.tableau import TABLEAUS
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver

FIXED = list(TABLEAUS)
RK4 = Solver(method="rk4", steps=5)
DOPRI5 = Solver(method="dopri5", tol=1e-5)


class Field(nn.Module):
    """A small network of t and y, with what a test puts between its layers."""

    def __init__(self, *between: nn.Module) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
        self.between = nn.Sequential(*between)
        self.double()

    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        time = torch.ones_like(y[:, :1]) * t
        return self.last(self.between(torch.tanh(self.first(torch.cat((time, y), dim=1)))))


class Autonomous(Field):
    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        return super().forward(0.0, y)


def start(batch: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, generator=generator, dtype=torch.float64).requires_grad_()


def gradients(block: ODEBlock, times: Sequence[float] = (0.0, 1.0)) -> dict[str, Tensor]:
    """The trajectory and the gradients of a loss that weighs each output time differently."""
    y0 = start()
    block.zero_grad()
    trajectory = block.trajectory(y0, times)
    weights = torch.linspace(-1, 2, trajectory.numel(), dtype=torch.float64)
    (trajectory.flatten() @ weights + trajectory.square().sum()).backward()
    found = {name: p.grad for name, p in block.named_parameters() if p.grad is not None}
    assert y0.grad is not None
    return {"trajectory": trajectory.detach(), "y0": y0.grad, **found}


def taken(
    solver: Solver,
    gradient: Gradient,
    field: Callable[[], nn.Module] = Field,
    times: Sequence[float] = (0.0, 1.0),
) -> dict[str, Tensor]:
    return gradients(ODEBlock(field(), solver, gradient), times)


def rk4_for(gradient: str, steps: int = 5) -> Solver:
    """Runge-Kutta in a form that a gradient takes: `reversible` runs it backwards."""
    coupling = 0.95 if gradient == "reversible" else None
    return Solver(method="rk4", steps=steps, coupling=coupling)
