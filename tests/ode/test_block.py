from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from nodebench.errors import DeadlineExceeded, EvaluationLimit, RandomField
from nodebench.ode import block as block_module
from nodebench.ode.block import ODEBlock, batch_statistics, ode_blocks, one_pass, replaced
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
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


def test_a_pass_counts_each_blocks_evaluations_in_order_from_zero() -> None:
    first = ODEBlock(Decay(), EULER, Gradient())
    second = ODEBlock(Decay(), Solver(method="rk4", steps=3), Gradient(name="recompute"))
    model = nn.Sequential(first, nn.Identity(), nn.Sequential(second))
    assert ode_blocks(model) == [first, second]
    with one_pass(model) as forward:
        y = model(start())
    with one_pass(model) as nothing:
        pass
    with one_pass(model) as backward:
        y.sum().backward()
    assert (forward.evaluations, nothing.evaluations) == ([4, 12], [0, 0])
    assert (backward.evaluations, backward.nfe) == ([0, 12], 12)
    with one_pass(model) as twice:
        model(start())
        model(start())
    assert twice.evaluations == [8, 24]
    with one_pass(nn.Linear(2, 2)) as without_blocks:
        pass
    assert without_blocks.evaluations == []


def test_a_pass_that_fails_is_counted_and_does_not_count_towards_the_next() -> None:
    block = ODEBlock(Decay(1e6), Solver(method="dopri5", tol=1e-10), Gradient())
    block.max_evaluations = 500
    counted = []
    for _ in range(2):
        with pytest.raises(EvaluationLimit), one_pass(block) as counts:
            block(start())
        counted.append(counts.nfe)
    assert counted == [501, 501]


def test_a_solve_that_never_ends_meets_the_evaluation_limit() -> None:
    block = ODEBlock(Decay(1e6), Solver(method="dopri5", tol=1e-10), Gradient())
    block.max_evaluations = 500
    with pytest.raises(EvaluationLimit, match="more than 500"):
        block(start())
    assert block.evaluations == 501


def test_the_evaluation_limit_itself_is_allowed() -> None:
    block = ODEBlock(Decay(), Solver(method="rk4", steps=5), Gradient())
    block.max_evaluations = 20
    for _ in range(2):
        with one_pass(block):
            block(start())
    block.max_evaluations = 19
    with pytest.raises(EvaluationLimit), one_pass(block):
        block(start())


@pytest.mark.parametrize(
    "solver",
    [
        Solver(method="rk4", steps=6),
        Solver(method="euler", step_size=1e-6),
        Solver(method="implicit_adams", steps=1000),
    ],
)
def test_a_solve_beyond_the_limit_is_refused_before_its_first_evaluation(solver: Solver) -> None:
    block = ODEBlock(Decay(), solver, Gradient())
    block.max_evaluations = 20
    with pytest.raises(EvaluationLimit, match="20 evaluations: take fewer steps, or raise"):
        block(start())
    assert block.evaluations == 0
    block.solver, block.gradient = EULER, Gradient(name="adjoint", solver=solver)
    with pytest.raises(EvaluationLimit, match=f"a pass of `{solver.method}` needs more than 20"):
        block(start().requires_grad_())
    with torch.no_grad():
        block(start())


class Noisy(nn.Module):
    """F with dropout, as a user might write it, and statistics that it keeps."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.layer, self.dropout = nn.Linear(8, 8), nn.Dropout(p)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.norm(self.dropout(self.layer(y)))
        return out


@pytest.mark.parametrize("gradient", ["backprop", "adjoint", "recompute"])
@pytest.mark.parametrize(
    "solver",
    [Solver(), Solver(method="implicit_adams", steps=4), Solver(method="scipy_solver")],
)
def test_an_adaptive_solver_refuses_an_f_that_draws_random_numbers(
    solver: Solver, gradient: str
) -> None:
    block, y0 = ODEBlock(Noisy(0.1), solver, Gradient(name=gradient)), torch.randn(16, 8)
    with pytest.raises(RandomField, match="two values for one input, as dropout"):
        block(y0)
    assert block.evaluations == 0
    block.eval()
    block(y0)


def test_a_method_of_fixed_steps_may_have_a_random_f() -> None:
    block = ODEBlock(Noisy(0.5), EULER, Gradient())
    assert block(torch.randn(16, 8)).isfinite().all()


def test_asking_f_twice_leaves_no_trace() -> None:
    block, y0 = ODEBlock(Noisy(0.0), Solver(tol=1e-3), Gradient()), torch.randn(16, 8)
    before, norm = torch.get_rng_state(), block.f.norm
    block(y0)
    assert torch.equal(torch.get_rng_state(), before)
    assert norm.num_batches_tracked == block.evaluations
    block(y0)
    assert norm.num_batches_tracked == block.evaluations


def test_an_f_that_rounds_otherwise_at_each_call_is_a_function() -> None:
    class Rounding(Decay):
        def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
            return super().forward(t, y) * (1 + 1e-7 * torch.rand(()))

    ODEBlock(Rounding(), Solver(), Gradient())(start())


@pytest.mark.parametrize("name", sorted(set(GRADIENTS) - {"backprop", "exact"}))
def test_the_evaluation_limit_holds_in_the_backward_pass(name: str) -> None:
    coupling = 0.9 if name == "reversible" else None
    solver = Solver(method="euler", steps=4, coupling=coupling)
    block = ODEBlock(Decay(), solver, Gradient(name=name))
    y = block(start().requires_grad_())
    block.max_evaluations = 3
    with pytest.raises(EvaluationLimit), one_pass(block):
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


def test_batch_norm_takes_the_batchs_statistics_where_it_is_asked_to() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(1, affine=False)

        def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
            out: Tensor = self.norm(y)
            return out

    outside = nn.BatchNorm1d(1)
    model = nn.Sequential(
        outside, ODEBlock(Normed(), Solver(method="euler", steps=2), Gradient())
    ).eval()
    x = torch.tensor([[3.0], [5.0]])
    running = model(x)
    torch.testing.assert_close(running, x * 1.5**2, rtol=1e-4, atol=0)
    with batch_statistics(model):
        batch = model(x)
    torch.testing.assert_close(batch, x + 2 * torch.tensor([[-0.5], [0.5]]), rtol=1e-3, atol=0)
    torch.testing.assert_close(model(x), running)
    assert outside.num_batches_tracked == 0


def test_replaced_attributes_are_restored_after_an_error() -> None:
    one, other = (ODEBlock(Decay(), EULER, Gradient()) for _ in range(2))
    one.max_evaluations, other.max_evaluations = 5, 6
    rk4 = Solver(method="rk4", steps=4)
    other(start())  # Euler's four steps are four evaluations, and those of rk4 sixteen
    with pytest.raises(EvaluationLimit), replaced([one, other], solver=rk4, max_evaluations=15):
        other(start())
    assert (one.solver, one.max_evaluations, other.max_evaluations) == (EULER, 5, 6)
