"""The gradient `adjoint` against torchdiffeq and closed forms; its derivation: test_adjoint.py."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

from nodebench.ode.block import ODEBlock
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from tests.support.ode_problems import LOGISTIC
from tests.support.tiny_fields import (
    DOPRI5,
    RK4,
    Autonomous,
    Field,
    gradients,
    start,
    taken,
)


def oracle(field: nn.Module, times: Sequence[float], **settings: object) -> dict[str, Tensor]:
    """The same as `taken`, through torchdiffeq's adjoint."""
    block = ODEBlock(field, RK4, Gradient())

    def trajectory(y0: Tensor, times: Sequence[float]) -> Tensor:
        t = torch.tensor(times, dtype=torch.float64)
        return torchdiffeq.odeint_adjoint(block.f, y0, t, **settings)

    block.trajectory = trajectory
    return gradients(block, times)


@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 0.2, 0.9, 1.0), (1.0, 0.5, 0.0)])
def test_a_fine_adjoint_is_backprop(times: tuple[float, ...]) -> None:
    fine = Solver(method="dopri5", tol=1e-9)
    torch.testing.assert_close(
        taken(fine, Gradient(name="adjoint"), times=times),
        taken(Solver(method="rk4", steps=200), Gradient(name="backprop"), times=times),
        rtol=1e-6,
        atol=1e-8,
    )


@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 0.25, 1.0)])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("euler", "euler"), ("midpoint", "midpoint"), ("heun3", "heun3"), ("rk4_38", "rk4")],
)
def test_the_fixed_step_adjoint_is_torchdiffeqs(
    ours: str, theirs: str, times: tuple[float, ...]
) -> None:
    solver = Solver(method=ours, step_size=0.125)
    expected = oracle(Field(), times, method=theirs, options={"step_size": 0.125})
    found = taken(solver, Gradient(name="adjoint"), times=times)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


# torchdiffeq 0.2.5 also solves for the gradient by time (it marks t by an in-place
# `requires_grad_`), and its norms see it; that is zero in an autonomous field.
@pytest.mark.parametrize("norm", ["default", "seminorm"])
def test_the_adaptive_adjoint_is_torchdiffeqs(norm: str) -> None:
    forward, backward = (torch.tensor([t], dtype=torch.float64) for t in (1.0, 0.0))
    expected = oracle(
        Autonomous(),
        (0.0, 1.0),
        method="dopri5",
        rtol=1e-5,
        atol=1e-5,
        options={"step_t": forward},
        adjoint_options={"step_t": backward} | ({"norm": norm} if norm == "seminorm" else {}),
    )
    found = taken(DOPRI5, Gradient(name="adjoint", norm=norm), Autonomous)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_the_seminorm_leaves_the_parameters_out_of_the_error_control() -> None:
    def backward_evaluations(norm: str) -> int:
        solver = Solver(method="dopri5", tol=1e-7)
        block = ODEBlock(Field(), solver, Gradient(name="adjoint", norm=norm))
        y = block(start(batch=64))
        before = block.evaluations
        y.sum().backward()
        return block.evaluations - before

    assert backward_evaluations("seminorm") < backward_evaluations("default")


def test_the_adjoint_may_have_a_solver_of_its_own() -> None:
    block = ODEBlock(Field(), DOPRI5, Gradient(name="adjoint", solver=RK4))
    y = block(start())
    forward = block.evaluations
    y.sum().backward()
    assert block.evaluations - forward == 5 * 4
    assert (forward - 2) % 6 == 0


def test_the_adjoint_of_the_logistic_equation_is_exact() -> None:
    y0 = LOGISTIC.y0.clone().requires_grad_()
    f = nn.Module()
    f.forward = lambda t, y: LOGISTIC.f(t, y)
    ODEBlock(f, Solver(method="dopri5", tol=1e-10), Gradient(name="adjoint"))(y0).sum().backward()
    # y(1) = 1 / (1 + (1/y0 - 1) e^-2), hence dy(1)/dy0 = (y(1)/y0)² e^-2.
    expected = (LOGISTIC.exact(1.0) / LOGISTIC.y0).square() * torch.tensor(-2.0).double().exp()
    assert y0.grad is not None
    torch.testing.assert_close(y0.grad, expected, rtol=1e-8, atol=0)
