"""An integral along a solve, as a regularizer takes it."""

import math

import pytest
import torch
from torch import Tensor, nn

from nodebench.ode.block import ODEBlock, integrated, take_evaluations
from nodebench.spec.solver import Gradient, Solver
from nodebench.spec.vocabulary import GRADIENTS
from tests.support.tiny_fields import RK4, rk4_for

FINE = Solver(method="rk4", steps=50)
FINE_ADAPTIVE = Solver(method="dopri5", tol=1e-8)


class Decay(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        return -self.rate * y


def kinetic(_t: float | Tensor, _y: Tensor, dy: Tensor) -> Tensor:
    return dy.square().flatten(1).sum(1)


def y0() -> Tensor:
    return (
        torch.ones(2, 3, 2, dtype=torch.float64)
        * torch.tensor([1.0, 2.0], dtype=torch.float64)[:, None, None]
    )


def taken(solver: Solver, gradient: str) -> tuple[Tensor, Tensor]:
    block = ODEBlock(Decay(), solver, Gradient(name=gradient))
    with integrated(block, kinetic) as found:
        y = block(y0())
    [energy] = found
    (energy.sum() + y.sum()).backward()
    assert block.f.rate.grad is not None
    return energy.detach(), block.f.rate.grad


@pytest.mark.parametrize("solver", [FINE, FINE_ADAPTIVE], ids=["rk4", "dopri5"])
def test_the_kinetic_energy_of_a_decay_is_its_closed_form(solver: Solver) -> None:
    energy, slope = taken(solver, "backprop")
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    squares = torch.tensor([6.0, 24.0], dtype=torch.float64)  # of the initial states
    closed = squares * rate / 2 * (1 - (-2 * rate).exp())
    (closed.sum() + 18 * (-rate).exp()).backward()
    torch.testing.assert_close(energy, closed.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(slope, rate.grad, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", GRADIENTS)
def test_every_gradient_goes_through_the_integral(name: str) -> None:
    solver = rk4_for(name)
    _, expected = taken(solver, "backprop")
    _, found = taken(solver, name)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


def test_an_integral_leaves_the_states_and_the_evaluations_as_they_are() -> None:
    block = ODEBlock(Decay(), RK4, Gradient())
    alone = block(y0())
    counts = take_evaluations(block)
    with integrated(block, kinetic):
        beside = block(y0())
    assert take_evaluations(block) == counts
    assert torch.equal(alone, beside)
    assert block.integral is None
    assert math.isclose(alone[0, 0, 0].item(), math.exp(-0.7), rel_tol=1e-2)
