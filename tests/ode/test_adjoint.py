"""Each step of docs/adjoint.md, checked numerically in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from nodebench.ode.field import Counted, ignored
from nodebench.ode.gradients.odeint import odeint
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver

T = 1.0
FINE = Solver(method="rk4", steps=200)
Y0 = torch.tensor([0.8, -0.3], dtype=torch.float64)
THETA = torch.tensor([[0.3, -1.1], [0.9, 0.2]], dtype=torch.float64)


def f(t: float, y: Tensor, theta: Tensor) -> Tensor:
    """A right-hand side that depends on everything."""
    return torch.tanh(theta @ y) + 0.1 * math.sin(t) * y


def flow(y: Tensor, theta: Tensor, t0: float, t1: float, steps: int = 200) -> Tensor:
    """The state at t1 that was y at t0; classic Runge-Kutta."""
    h = (t1 - t0) / steps
    for i in range(steps):
        t = t0 + i * h
        k1 = f(t, y, theta)
        k2 = f(t + h / 2, y + h / 2 * k1, theta)
        k3 = f(t + h / 2, y + h / 2 * k2, theta)
        k4 = f(t + h, y + h * k3, theta)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y


def loss(y: Tensor) -> Tensor:
    return (y**3).sum() + y.prod()


def adjoint(t: float) -> Tensor:
    """A(t): the gradient of the loss with respect to the state at t."""
    y = flow(Y0, THETA, 0.0, t).requires_grad_() if t else Y0.clone().requires_grad_()
    (a,) = torch.autograd.grad(loss(flow(y, THETA, t, T)), y)
    return a


def test_1_the_adjoint_at_the_end_is_the_loss_s_gradient():
    end = flow(Y0, THETA, 0.0, T)
    by_hand = 3 * end**2 + end.flip(0)
    torch.testing.assert_close(adjoint(T), by_hand, rtol=1e-12, atol=0)


@pytest.mark.parametrize("h", [0.1, 0.5])
def test_2_an_earlier_adjoint_follows_by_the_chain_rule(h):
    t = 0.3
    y = flow(Y0, THETA, 0.0, t)
    by_state = jacobian(lambda y: flow(y, THETA, t, t + h), y)
    torch.testing.assert_close(adjoint(t), by_state.T @ adjoint(t + h), rtol=1e-8, atol=0)


def test_3_over_a_short_time_the_jacobian_is_one_euler_step_to_second_order():
    t, y = 0.3, flow(Y0, THETA, 0.0, 0.3)
    by_state = jacobian(lambda y: f(t, y, THETA), y)
    errors = []
    for h in (0.02, 0.01):
        exact = jacobian(lambda y, h=h: flow(y, THETA, t, t + h), y)
        errors.append((exact - torch.eye(2, dtype=y.dtype) - h * by_state).norm())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("t", [0.2, 0.7])
def test_4_the_adjoint_obeys_its_own_ode(t):
    h = 1e-4
    slope = (adjoint(t + h) - adjoint(t - h)) / (2 * h)
    by_state = jacobian(lambda y: f(t, y, THETA), flow(Y0, THETA, 0.0, t))
    torch.testing.assert_close(slope, -by_state.T @ adjoint(t), rtol=1e-6, atol=1e-9)


def test_5_the_parameters_gradient_is_an_integral_over_the_adjoint():
    theta = THETA.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(flow(Y0, theta, 0.0, T)), theta)
    steps = 40  # Simpson's rule
    total = torch.zeros_like(theta)
    for i in range(steps + 1):
        t = i * T / steps
        y = flow(Y0, THETA, 0.0, t) if t else Y0
        (product,) = torch.autograd.grad(f(t, y, theta), theta, adjoint(t))
        weight = 1 if i in (0, steps) else 4 if i % 2 else 2
        total += weight * product
    torch.testing.assert_close(total * T / steps / 3, expected, rtol=1e-6, atol=1e-9)


class Field(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.theta = torch.nn.Parameter(THETA.clone())

    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        return f(float(t), y, self.theta)


def gradients(solver: Solver, name: str) -> tuple[Tensor, Tensor]:
    """DL/dy0 and dL/dθ as nodebench gives them."""
    field, y0 = Field(), Y0.clone().requires_grad_()
    states = odeint(Counted(field, ignored), y0, (0.0, T), solver, Gradient(name=name))
    loss(states[-1]).backward()
    assert y0.grad is not None
    assert field.theta.grad is not None
    return y0.grad, field.theta.grad


def test_6_one_solve_backwards_gives_both():
    theta, y0 = THETA.clone().requires_grad_(), Y0.clone().requires_grad_()
    expected = torch.autograd.grad(loss(flow(y0, theta, 0.0, T)), (y0, theta))
    for found, wanted in zip(gradients(FINE, "adjoint"), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)


def test_the_adjoint_of_a_solver_differs_from_its_own_gradient_in_proportion_to_the_step():
    differences = []
    for steps in (50, 100):
        solver = Solver(method="euler", steps=steps)
        by_adjoint, by_backprop = (gradients(solver, n)[1] for n in ("adjoint", "backprop"))
        differences.append((by_adjoint - by_backprop).norm())
    assert differences[0] / differences[1] == pytest.approx(2, rel=0.05)
