"""Gradients through solves whose steps are chosen here, one per batch or one per sample."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nodebench.ode.block import ODEBlock, one_pass
from nodebench.ode.field import Counted, ignored
from nodebench.ode.gradients.recorded_steps import traced
from nodebench.spec.gradient import Gradient
from tests.support.controlled_solves import TIMES, Turning, by
from tests.support.tiny_fields import start, taken


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("method", ["dopri5", "tsit5", "bosh3", "adaptive_heun"])
@pytest.mark.parametrize("gradient", ["aca", "recompute", "exact"])
def test_gradients_of_samples_steps_are_backprops(
    gradient: str, method: str, times: tuple[float, ...]
) -> None:
    solver = by("sample", method, 1e-4)
    found = taken(solver, Gradient(name=gradient), Turning, times)
    expected = taken(solver, Gradient(), Turning, times)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("step", ["batch", "sample"])
def test_backprop_is_the_slope_of_the_accepted_steps(step: str) -> None:
    """Finite differences along the steps that were accepted, in float64."""
    block = ODEBlock(Turning(), by(step, "tsit5", 1e-4), Gradient())
    y0 = start()
    gradient = torch.autograd.grad(block(y0).square().sum(), y0)[0]
    trace = traced(Counted(block.f, ignored), y0.detach(), (0.0, 1.0), block.solver)
    f = lambda t, y: (block.f(t, y[0]),)  # noqa: E731

    def loss(y: Tensor) -> float:
        carry = trace.stepper.start(f, 0.0, (y,))
        for each in trace.intervals[0]:
            carry = trace.stepper.step(f, each.t, each.h, carry)
        return float(carry[0][0].square().sum())

    with torch.no_grad():
        for i, j in ((0, 0), (2, 1), (4, 2)):
            shift = torch.zeros_like(y0)
            shift[i, j] = 1e-6
            slope = (loss(y0 + shift) - loss(y0 - shift)) / 2e-6
            assert float(gradient[i, j]) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("gradient", ["adjoint", "symplectic", "interpolated", "aca", "recompute"])
def test_one_step_a_batch_takes_every_gradient_of_embedded_methods(gradient: str) -> None:
    solver = by("batch", "tsit5", 1e-9)
    found = taken(solver, Gradient(name=gradient), times=(0.0, 0.4, 1.0))
    expected = taken(solver, Gradient(), times=(0.0, 0.4, 1.0))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_adjoint_of_samples_steps_takes_one_step_a_batch() -> None:
    solver = by("sample", "tsit5", 1e-9)
    assert Gradient(name="adjoint").backward(solver) == by("batch", "tsit5", 1e-9)
    found = taken(solver, Gradient(name="adjoint"), times=(0.0, 0.4, 1.0))
    expected = taken(solver, Gradient(), times=(0.0, 0.4, 1.0))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_try_that_is_not_finite_leaves_no_trace_in_the_gradient() -> None:
    class Falling(nn.Module):
        """One sample is thrown below 0, where its slope is not a number, by steps too long."""

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return -torch.where((t > 0.5) & (y > 3), 1e3, 0.1) * torch.log(y)

    found = {}
    for name in ("backprop", "aca"):
        y0 = torch.tensor([[5.0], [2.0]], dtype=torch.float64, requires_grad=True)
        block = ODEBlock(Falling(), by("sample", "dopri5", 1e-3), Gradient(name=name))
        with one_pass(block) as counts:
            y = block(y0)
        assert counts.steps is not None
        assert counts.steps.rejected > 0
        found[name] = torch.autograd.grad(y.sum(), y0)[0]
    assert found["aca"].isfinite().all()
    torch.testing.assert_close(found["backprop"], found["aca"], rtol=1e-10, atol=1e-12)
