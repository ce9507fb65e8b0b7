"""Adaptive solves of dense fields in compiled code, against those of the same field in torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nodebench.errors import Diverged, EvaluationLimit, StepUnderflow
from nodebench.models.dynamics import Autonomous
from nodebench.ode.block import ODEBlock
from nodebench.ode.dense.adaptive import CHUNK
from nodebench.ode.dense.field import DenseField
from nodebench.ode.tableau import EMBEDDED
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Control, Solver

BACKPROP = Gradient(name="backprop")
TIMES = [(0.0, 0.4, 1.0), (1.0, 0.3)]


def layers(
    dtype: torch.dtype = torch.float64, scale: float = 1.0, act: type[nn.Module] = nn.Tanh
) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        g = nn.Sequential(nn.Linear(3, 8), act(), nn.Linear(8, 5), act(), nn.Linear(5, 3))
    with torch.no_grad():
        g[-1].weight.mul_(scale)
    return g.to(dtype)


def start(dtype: torch.dtype = torch.float64) -> Tensor:
    """More samples than a block has."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return torch.randn(70, 3, dtype=torch.float64).to(dtype)


def taken(field: nn.Module, solver: Solver, times: tuple[float, ...] = TIMES[0]) -> list[Tensor]:
    """The states, the evaluations and steps, and the gradients of a loss of all states."""
    dtype = next(field.parameters()).dtype
    block, y0 = ODEBlock(field, solver, BACKPROP), start(dtype).requires_grad_()
    states = block.trajectory(y0, times)
    states.square().sum().backward()
    counts = [(c.accepted, c.rejected) for c in block.step_counts]
    steps = torch.tensor([block.evaluations, *counts[0]], dtype=torch.float64)
    return [states.detach(), steps, y0.grad, *(p.grad for p in field.parameters())]


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("controller", ["i", "pi"])
@pytest.mark.parametrize("method", EMBEDDED)
def test_states_steps_and_gradients_are_those_of_the_same_steps_in_torch(method, controller, times):
    solver = Solver(method=method, tol=1e-5, control=Control(controller=controller))
    found, expected = (taken(f(layers()), solver, times) for f in (DenseField, Autonomous))
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("act", [nn.Softplus, nn.ELU, nn.SiLU])
def test_other_activations_have_the_same_steps_and_gradients(act):
    solver = Solver(method="dopri5", tol=1e-5)
    found = taken(DenseField(layers(act=act)), solver)
    expected = taken(Autonomous(layers(act=act)), solver)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("method", ["adaptive_heun", "fehlberg2", "bosh3", "dopri5", "dopri8"])
def test_without_a_control_states_and_steps_are_torchdiffeqs(method, times):
    """Their gradients differ by far less than the tolerance: torchdiffeq's has the first size's."""
    solver = Solver(method=method, tol=1e-5)
    found, expected = (taken(f(layers()), solver, times) for f in (DenseField, Autonomous))
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[2:], expected[2:], rtol=1e-5, atol=1e-5)


def test_a_solve_of_more_steps_than_a_chunk_has_the_gradient_of_all():
    solver = Solver(method="bosh3", tol=1e-10, control=Control())
    found, expected = (taken(f(layers()), solver) for f in (DenseField, Autonomous))
    assert expected[1][1] > 2 * CHUNK
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


def test_rejected_steps_leave_no_trace_in_the_gradient():
    solver = Solver(method="dopri5", tol=1e-6, control=Control(safety=1.0, max_factor=100))
    found, expected = (
        taken(f(layers(scale=20)), solver, (0.0, 4.0)) for f in (DenseField, Autonomous)
    )
    assert expected[1][2] > 0
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)


def test_float32_is_float64_to_rounding():
    solver = Solver(method="dopri5", tol=1e-3)
    found, expected = (taken(DenseField(layers(d)), solver) for d in (torch.float32, torch.float64))
    assert found[1].tolist() == expected[1].tolist()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-4, atol=1e-5)


def test_a_solve_without_a_gradient_has_the_same_bits():
    block = ODEBlock(DenseField(layers()), Solver(method="dopri5", tol=1e-5), BACKPROP)
    with torch.no_grad():
        plain = block.trajectory(start(), TIMES[0])
    assert torch.equal(plain, block.trajectory(start(), TIMES[0]))


def test_the_limit_of_evaluations_holds():
    block = ODEBlock(DenseField(layers()), Solver(method="dopri5", tol=1e-9), BACKPROP)
    block.max_evaluations = 20
    with pytest.raises(EvaluationLimit):
        block(start())


def test_a_field_that_is_not_finite_has_diverged():
    field = DenseField(layers())
    with torch.no_grad():
        field.g[-1].bias.fill_(float("nan"))
    with pytest.raises(Diverged):
        taken(field, Solver(method="dopri5", tol=1e-5, control=Control()))


def test_a_tolerance_below_rounding_is_a_step_underflow():
    solver = Solver(method="dopri5", rtol=1e-100, atol=0.0, control=Control())
    with pytest.raises(StepUnderflow):
        taken(DenseField(layers()), solver, TIMES[1])
