"""Tests of training/numerical_error/gradients.py on fields with closed-form solutions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from nodebench.errors import Diverged, EvaluationLimit
from nodebench.ode.block import ODEBlock, ode_blocks
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from nodebench.training.numerical_error.gradients import ReferenceGradient
from tests.support.closed_forms import (
    ADJOINT,
    BACKPROP,
    COARSE,
    DECAY,
    REFERENCE,
    Linear,
    Lively,
    Regression,
    euler,
    network,
    slope,
)


def exact_gradient(factor: float, slope_of_factor: float) -> float:
    """dL/da for L = (factor y0)² / 2 over the samples, relative to that of the ODE."""
    return factor * slope_of_factor / -math.exp(-2 * DECAY)


@pytest.fixture(scope="module")
def decay() -> ReferenceGradient:
    """The gradient's error on dy/dt = -a y, whose reference takes seconds."""
    return ReferenceGradient(network(), Regression(), REFERENCE)


@pytest.mark.parametrize("steps", [2, 8])
def test_backprop_has_the_gradient_of_the_steps(decay: ReferenceGradient, steps: int) -> None:
    factor = (1 - DECAY / steps) ** steps
    derivative = -((1 - DECAY / steps) ** (steps - 1))
    found = decay.of(BACKPROP, euler(steps))
    expected = abs(exact_gradient(factor, derivative) - 1)
    assert found["gradient_error"] == pytest.approx(expected, rel=1e-4)
    assert found["gradient_cosine"] == pytest.approx(1.0)
    assert (found["nfe_forward"], found["nfe_backward"]) == (steps, 0)
    assert found["seconds"] > 0


def test_the_adjoint_differs_from_backprop_at_coarse_steps_and_converges(
    decay: ReferenceGradient,
) -> None:
    errors = {n: decay.of(ADJOINT, euler(n))["gradient_error"] for n in (2, 8, 32, 64)}
    points = [(math.log(n), -math.log(errors[n])) for n in (8, 32, 64)]
    assert slope(points) == pytest.approx(1.0, abs=0.15)
    assert errors[2] > 2 * errors[8]
    backprop = decay.of(BACKPROP, euler(2))["gradient_error"]
    assert abs(errors[2] - backprop) > 0.05
    assert decay.of(ADJOINT, euler(8))["nfe_backward"] == 8


def test_recompute_is_backprop(decay: ReferenceGradient) -> None:
    found = [decay.of(Gradient(name=n), euler(8)) for n in ("backprop", "recompute")]
    assert found[0]["gradient_error"] == found[1]["gradient_error"]
    assert found[1]["nfe_backward"] == 8


def test_the_limit_of_evaluations_is_of_each_pass_of_each_gradient() -> None:
    model = network()
    ode_blocks(model)[0].max_evaluations = 20
    measured = ReferenceGradient(model, Regression(), COARSE)  # which takes 32
    assert measured.of(ADJOINT, euler(12))["nfe_backward"] == 12
    with pytest.raises(EvaluationLimit):
        measured.of(BACKPROP, euler(30))
    assert measured.of(BACKPROP, euler(4))["nfe_forward"] == 4


def test_a_gradient_in_the_wrong_direction_is_seen() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.tensor([DECAY, 0.3]))

        def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
            a = self.a if y.dtype == torch.float64 else 2 * self.a.detach() - self.a
            return -a.sum() * y

    found = ReferenceGradient(network(Backwards()), Regression(), COARSE).of(BACKPROP, euler(256))
    assert found["gradient_cosine"] == pytest.approx(-1.0)
    assert found["gradient_error"] == pytest.approx(2.0, abs=0.05)


def test_a_gradient_that_is_not_finite_is_a_failure() -> None:
    class Explosive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.tensor(1.0))

        def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
            return self.a * (y if y.dtype == torch.float64 else y * 1e30)

    with pytest.raises(Diverged, match="the gradient is not finite"):
        ReferenceGradient(network(Explosive()), Regression(), COARSE).of(BACKPROP, euler(4))


def test_the_memory_of_a_pass_is_that_of_the_states_it_keeps() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(1) * 0.1)

        def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
            if y.dtype == torch.float64:  # the reference, of no interest here
                return y @ self.weight
            wide = (y @ self.weight).expand(-1, 1 << 14).tanh()  # 1 MiB, kept for the backward
            return wide.mean(1, keepdim=True)

    measured = ReferenceGradient(network(Wide()), Regression(), COARSE)
    few, many, adjoint = (
        measured.of(gradient, euler(steps))["memory_bytes"] / 2**20
        for gradient, steps in ((BACKPROP, 4), (BACKPROP, 64), (ADJOINT, 64))
    )
    assert many - few == pytest.approx(60, rel=0.2)
    assert adjoint < 15


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.double()


def test_a_gradient_near_the_reference_s_has_no_error() -> None:
    model = nn.Sequential(Doubled(), ODEBlock(Lively(), euler(2), BACKPROP)).double()
    measured = ReferenceGradient(model, Regression(), Solver(method="rk4", steps=64))
    y0, growth = Regression().sample(16).double(), math.sin(20) / 20
    exact = growth * math.exp(2 * 6 * growth) * y0.square().sum().item()
    for steps in (16, 32, 64, 128, 512):
        solver = Solver(method="rk4", steps=steps)
        Regression().loss(ODEBlock(model[1].f, solver, BACKPROP), y0).mean.backward()
        true = abs(model[1].f.a.grad.item() / exact - 1)
        model.zero_grad()
        found = measured.of(BACKPROP, solver)["gradient_error"]
        assert found == (None if steps > 64 else pytest.approx(true, rel=0.05))


class Called(nn.Module):
    """A network which calls its block by its forward pass, or for states at given times."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.block, self.how = ODEBlock(Lively(), euler(2), BACKPROP), how

    def forward(self, y: Tensor) -> Tensor:
        if self.how == "forward":
            return self.block(y)
        return getattr(self.block, self.how)(y, (0.0, 1.0))[-1]


@pytest.mark.parametrize("how", ["forward", "trajectory", "states"])
def test_the_reference_takes_all_of_its_steps_however_a_block_is_called(how: str) -> None:
    model = Called(how)
    measured = ReferenceGradient(model, Regression(), REFERENCE)
    growth = math.sin(20) / 20
    loss_by_a = growth * math.exp(2 * 6.0 * growth) * Regression().sample(16).square().sum()
    assert measured.reference.value.item() == pytest.approx(loss_by_a.item(), rel=1e-7)


class Scaled(nn.Module):
    """L = |exp(-a) y0|²/2 has dL/dy0 = exp(-2a) y0, which this model knows."""

    is_solved = True

    def __init__(self) -> None:
        super().__init__()
        self.block = ODEBlock(Linear(), euler(8), BACKPROP)

    def forward(self, y0: Tensor) -> Tensor:
        return self.block(y0)

    def solution(self, y0: Tensor) -> Tensor:
        return y0 * torch.exp(-self.block.f.a)


@pytest.mark.parametrize("steps", [2, 8, 64])
def test_the_error_of_the_states_gradient_is_that_of_the_closed_form(
    decay: ReferenceGradient, steps: int
) -> None:
    solved = ReferenceGradient(Scaled(), Regression(), REFERENCE)
    for measured in (decay, solved):  # by a reference of many steps, and by its own solution
        row = measured.of(BACKPROP, euler(steps))
        factor = (1 - DECAY / steps) ** steps
        expected = abs((factor / math.exp(-DECAY)) ** 2 - 1)
        assert row["state_gradient_error"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("gradient", "solver", "most"),
    [
        (Gradient(name="aca"), euler(8), 1e-6),
        (Gradient(name="symplectic"), Solver(method="rk4", steps=4), 1e-6),
        (Gradient(name="reversible"), Solver(method="alf", steps=8), 1e-6),
        (Gradient(name="recompute", segments="auto"), euler(8), 1e-6),
    ],
    ids=lambda value: value.name if isinstance(value, Gradient) else "",
)
def test_exact_gradients_are_backprops_and_the_adjoint_is_not(
    decay, gradient, solver, most
) -> None:
    assert decay.of(gradient, solver)["backprop_error"] < most
    assert decay.of(BACKPROP, solver)["backprop_error"] == 0
    assert decay.of(ADJOINT, euler(8))["backprop_error"] > 1e-2


def test_the_memory_of_a_gradient_is_counted_and_the_same_each_time(
    decay: ReferenceGradient,
) -> None:
    found = [decay.of(BACKPROP, euler(n))["memory_bytes"] for n in (256, 64, 64)]
    assert found[1] == found[2]
    assert found[0] / found[1] == pytest.approx(4, rel=0.1)


def test_a_reference_is_taken_once_for_all_who_share_it() -> None:
    known: dict[Solver, object] = {}
    ReferenceGradient(network(), Regression(), REFERENCE, known)
    assert {solver.steps for solver in known} == {256, 128}

    class Refuses(nn.Module):
        def forward(self, _t: float | Tensor, _y: Tensor) -> Tensor:
            raise AssertionError

    shared = ReferenceGradient(network(Refuses()), Regression(), REFERENCE, known)
    assert shared.reference.value is known[REFERENCE].parameters
