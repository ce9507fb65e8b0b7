from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from nodebench.errors import DeadlineExceeded, EvaluationLimit
from nodebench.ode import block as block_module
from nodebench.ode.block import ODEBlock, ode_blocks, take_evaluations
from nodebench.spec.solver import Gradient, Solver
from nodebench.spec.vocabulary import GRADIENTS

EULER = Solver(method="euler", steps=4)


class Decay(nn.Module):
    """dy/dt = -rate y."""

    def __init__(self, rate: float = 1.0) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate, dtype=torch.float64))

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        return -self.rate * y


def start() -> Tensor:
    return torch.ones(2, 3, dtype=torch.float64)


def test_a_block_integrates_from_zero_to_t1() -> None:
    block = ODEBlock(Decay(0.5), Solver(method="dopri5", tol=1e-9), Gradient(), t1=3.0)
    torch.testing.assert_close(block(start()), start() * math.exp(-1.5), rtol=0, atol=1e-7)


def test_the_same_weights_run_under_another_solver() -> None:
    block = ODEBlock(Decay(), EULER, Gradient())
    assert block(start())[0, 0].item() == pytest.approx(0.75**4)
    block.solver = Solver(method="midpoint", steps=1)
    assert block(start())[0, 0].item() == pytest.approx(0.5)
    block.solver = Solver(method="dopri8", tol=1e-10)
    assert block(start())[0, 0].item() == pytest.approx(math.exp(-1), abs=1e-8)
    assert list(block.state_dict()) == ["f.rate"]


def test_the_gradient_method_may_be_replaced() -> None:
    block = ODEBlock(Decay(), EULER, Gradient(name="backprop"))
    # The discrete gradient of 0.75^4 by the rate, and the adjoint's, which differ.
    expected = {"backprop": -(0.75**3), "recompute": -(0.75**3)}
    for name, value in expected.items():
        block.gradient = Gradient(name=name)
        block.zero_grad()
        block(start())[0, 0].backward()
        assert block.f.rate.grad is not None
        assert block.f.rate.grad.item() == pytest.approx(value)


def test_a_trajectory_has_one_state_per_time() -> None:
    block = ODEBlock(Decay(), Solver(method="rk4", steps=8), Gradient())
    trajectory = block.trajectory(start(), (0.0, 0.5, 2.0))
    assert trajectory.shape == (3, 2, 3)
    expected = [1.0, math.exp(-0.5), math.exp(-2)]
    assert trajectory[:, 1, 2].tolist() == pytest.approx(expected, abs=1e-4)


def test_taking_evaluations_gives_each_blocks_in_order_and_begins_anew() -> None:
    first = ODEBlock(Decay(), EULER, Gradient())
    second = ODEBlock(Decay(), Solver(method="rk4", steps=3), Gradient(name="recompute"))
    model = nn.Sequential(first, nn.Identity(), nn.Sequential(second))
    assert list(ode_blocks(model)) == [first, second]
    y = model(start())
    assert take_evaluations(model) == [4, 12]
    assert take_evaluations(model) == [0, 0]
    y.sum().backward()
    assert take_evaluations(model) == [0, 12]
    model(start())
    model(start())
    assert take_evaluations(model) == [8, 24]
    assert take_evaluations(nn.Linear(2, 2)) == []


def test_a_solve_that_never_ends_meets_the_evaluation_limit() -> None:
    block = ODEBlock(Decay(1e6), Solver(method="dopri5", tol=1e-10), Gradient())
    block.max_evaluations = 500
    with pytest.raises(EvaluationLimit, match="more than 500"):
        block(start())
    assert block.evaluations == 501


def test_the_evaluation_limit_itself_is_allowed() -> None:
    block = ODEBlock(Decay(), Solver(method="rk4", steps=5), Gradient())
    block.max_evaluations = 20
    block(start())
    take_evaluations(block)
    block.max_evaluations = 19
    with pytest.raises(EvaluationLimit):
        block(start())


@pytest.mark.parametrize("name", sorted(set(GRADIENTS) - {"backprop", "exact"}))
def test_the_evaluation_limit_holds_in_the_backward_pass(name: str) -> None:
    block = ODEBlock(Decay(), EULER, Gradient(name=name))
    y = block(start().requires_grad_())
    take_evaluations(block)
    block.max_evaluations = 3
    with pytest.raises(EvaluationLimit):
        y.sum().backward()


@pytest.mark.parametrize(
    ("solver", "asked"), [(EULER, 0), (Solver(), 2), (Solver(method="implicit_adams", steps=4), 2)]
)
def test_a_solve_stops_at_the_deadline(
    solver: Solver, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a method that is not fixed, f is asked twice before: not counted, but in time."""
    now = [100.0]

    class Slow(Decay):
        def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
            now[0] += 1
            return super().forward(t, y)

    monkeypatch.setattr(block_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    block = ODEBlock(Slow(), solver, Gradient())
    block.deadline = 102.5
    with pytest.raises(DeadlineExceeded):
        block(start())
    assert block.evaluations == 4 - asked
    now[0], block.deadline = 0.0, 1e6
    block(start())


def test_scipy_lets_limits_through() -> None:
    for scipy in ("RK45", "LSODA", "BDF"):
        solver = Solver(method="scipy_solver", scipy=scipy, tol=1e-8)
        block = ODEBlock(Decay(), solver, Gradient(name="adjoint"))
        block.max_evaluations = 5
        with pytest.raises(EvaluationLimit):
            block(start())
