"""Tests of training/numerical_error.py on fields with closed-form solutions."""

from __future__ import annotations

import copy
import math
from statistics import linear_regression

import pytest
import torch
from torch import Tensor, nn

from nodebench.errors import Diverged, EvaluationLimit
from nodebench.ode.block import ODEBlock, batch_statistics, ode_blocks, take_evaluations
from nodebench.spec.solver import Gradient, Solver
from nodebench.training.numerical_error import ReferenceGradient, ReferenceSolves
from nodebench.training.task import Loss

ADJOINT, BACKPROP = Gradient(name="adjoint"), Gradient(name="backprop")
DECAY = 0.7
REFERENCE = Solver(method="rk4", steps=256)


def euler(steps: int) -> Solver:
    return Solver(method="euler", steps=steps)


class Linear(nn.Module):
    """f(y) = -a y."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(DECAY))

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        return -self.a * y


class Regression:
    """A task whose loss is half the squared norm of the output."""

    device = torch.device("cpu")

    def sample(self, size: int) -> Tensor:
        return torch.linspace(1, 2, size).unsqueeze(1)

    def loss(self, model: nn.Module, batch: Tensor) -> Loss:
        return Loss(model(batch).square().sum() / 2, len(batch), {})


def network(*fields: nn.Module) -> nn.Sequential:
    blocks = [ODEBlock(f, euler(2), BACKPROP) for f in fields or (Linear(),)]
    return nn.Sequential(*blocks)


def slope(points: list[tuple[float, float]]) -> float:
    return linear_regression(*zip(*points, strict=True)).slope


def exact_error(factor: float) -> float:
    """The relative error of a solver that multiplies by `factor` over the interval."""
    return abs(factor / math.exp(-DECAY) - 1)


@pytest.mark.parametrize("steps", [1, 2, 8, 64])
def test_the_error_of_a_solve_is_that_of_the_closed_form(steps: int) -> None:
    error = ReferenceSolves(network(), Regression(), REFERENCE).under(euler(steps))
    assert error == pytest.approx(exact_error((1 - DECAY / steps) ** steps), rel=1e-7)


@pytest.mark.parametrize(
    ("method", "order"), [("euler", 1), ("midpoint", 2), ("heun3", 3), ("rk4", 4)]
)
def test_the_slope_of_errors_is_the_methods_order(method: str, order: int) -> None:
    errors = ReferenceSolves(network(), Regression(), REFERENCE)
    counts = (8, 16, 32)
    found = [errors.under(Solver(method=method, steps=n)) for n in counts]
    points = [(math.log(n), -math.log(e)) for n, e in zip(counts, found, strict=True)]
    assert slope(points) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(
    ("method", "order"), [("euler", 1), ("midpoint", 2), ("heun3", 3), ("rk4", 4)]
)
def test_the_observed_order_is_the_methods(method: str, order: int) -> None:
    errors = ReferenceSolves(network(), Regression(), REFERENCE)
    for settings in ({"steps": 8}, {"step_size": 1 / 8}, {"steps": 64}, {"steps": 96}):
        found = errors.order(Solver(method=method, **settings))
        assert found == pytest.approx(order, abs=0.1)
    assert errors.order(Solver(method="dopri5", tol=1e-3)) is None


def test_nothing_is_said_of_solves_near_rounding() -> None:
    errors = ReferenceSolves(network(), Regression(), REFERENCE)
    assert errors.under(Solver(method="rk4", step_size=1e-3)) is None  # 1e-15
    assert errors.under(Solver(method="dopri8", tol=1e-13)) is None
    # h^4 a^5 / 120, of as many steps as the reference began with, and so of others'.
    assert errors.under(REFERENCE) == pytest.approx(DECAY**5 / 120 / 256**4, rel=0.05)


class Swinging(nn.Module):
    """dy/dt = 6 cos(20 t) y."""

    def __init__(self) -> None:
        super().__init__()
        self.evaluations = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.evaluations += 1
        return 6 * torch.cos(20 * t) * y


def true_error(solver: Solver) -> float:
    """Of the same field, from the closed form."""
    block = ODEBlock(Swinging(), solver, BACKPROP)
    y0 = torch.ones(1, 1, dtype=torch.float64)
    return abs(block(y0).item() / math.exp(6 * math.sin(20) / 20) - 1)


@pytest.mark.parametrize("steps", [32, 64, 96, 128, 256])
@pytest.mark.parametrize("method", ["rk4", "rk4_38"])
def test_the_order_is_right_also_near_the_first_reference(method: str, steps: int) -> None:
    errors = ReferenceSolves(network(Swinging()), Regression(), REFERENCE)
    solver = Solver(method=method, steps=steps)
    true = [true_error(Solver(method=method, steps=finer * steps)) for finer in (1, 2, 4)]
    assert errors.under(solver) == pytest.approx(true[0], rel=1e-2)
    points = [(math.log(2) * i, -math.log(error)) for i, error in enumerate(true)]
    assert errors.order(solver) == pytest.approx(slope(points), abs=0.01)


@pytest.mark.parametrize("steps", [256, 512, 1024, 2048, 4096, 8192])
def test_an_error_is_right_or_not_told(steps: int) -> None:
    model = network(Swinging())
    errors = ReferenceSolves(model, Regression(), REFERENCE)
    solver = Solver(method="rk4_38", steps=steps)
    found = errors.under(solver)
    assert (found is None) == (steps > 1024)
    if found is not None:
        assert found == pytest.approx(true_error(solver), rel=2e-2)
    # The references, of 256, 1,024 and 4,096 steps, with their halves and once for their inputs.
    steps_of_references = 256 + 1.5 * (256 + 1024 + 4096)
    evaluations = next(ode_blocks(errors.model)).f.evaluations
    assert evaluations <= 4 * (steps_of_references + steps)


def test_a_reference_near_a_kink_is_not_taken_for_better_than_it_is() -> None:
    class Kinked(nn.Module):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return (t - 0.3).relu() * 4 + 0 * y

    errors = ReferenceSolves(network(Kinked()), Regression(), REFERENCE)
    y0 = Regression().sample(8).double()
    exact = y0 + 2 * 0.7**2
    for steps in (2, 8, 64, 300, 1000, 3000):
        solver = Solver(method="rk4", steps=steps)
        true = ((ODEBlock(Kinked(), solver, BACKPROP)(y0) - exact).norm() / exact.norm()).item()
        found = errors.under(solver)
        assert found is None or found == pytest.approx(true, rel=0.15)
        assert found is not None or steps > 64


def test_a_gradient_near_the_reference_s_has_no_error() -> None:
    model = nn.Sequential(Doubled(), ODEBlock(Lively(), euler(2), BACKPROP)).double()
    measured = ReferenceGradient(model, Regression(), REFERENCE)
    y0, growth = Regression().sample(16).double(), math.sin(20) / 20
    exact = growth * math.exp(2 * 6 * growth) * y0.square().sum().item()
    for steps in (64, 128, 256, 512, 4096):
        solver = Solver(method="rk4", steps=steps)
        Regression().loss(ODEBlock(model[1].f, solver, BACKPROP), y0).mean.backward()
        true = abs(model[1].f.a.grad.item() / exact - 1)
        model.zero_grad()
        found = measured.of(BACKPROP, solver)["gradient_error"]
        assert found == (None if steps > 256 else pytest.approx(true, rel=0.05))


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.double()


def test_errors_of_several_blocks_do_not_add_up() -> None:
    one, three = network(), network(Linear(), Linear(), Linear())
    single, several = (
        ReferenceSolves(model, Regression(), REFERENCE).under(euler(4)) for model in (one, three)
    )
    assert several == pytest.approx(single, rel=1e-6)


def test_measuring_leaves_the_model_as_it_was() -> None:
    model = network()
    block = next(ode_blocks(model))
    block.max_evaluations, before = 10, copy.deepcopy(model.state_dict())
    assert ReferenceSolves(model, Regression(), REFERENCE).under(euler(8)) is not None
    ReferenceGradient(model, Regression(), REFERENCE).of(ADJOINT, euler(4))
    assert take_evaluations(model) == [0]
    assert (block.solver, block.gradient, block.max_evaluations) == (euler(2), BACKPROP, 10)
    assert block.f.a.grad is None
    assert block.f.a.dtype == torch.float32
    assert {k: v.item() for k, v in model.state_dict().items()} == {
        k: v.item() for k, v in before.items()
    }


def test_a_solve_that_fails_has_no_error() -> None:
    model = network()
    next(ode_blocks(model)).max_evaluations = 10
    errors = ReferenceSolves(model, Regression(), REFERENCE)
    assert errors.under(euler(11)) is None
    assert errors.under(euler(10)) is not None


# ----------------------------------------------------------------------------------- gradients


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
    next(ode_blocks(model)).max_evaluations = 20
    measured = ReferenceGradient(model, Regression(), REFERENCE)
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

    found = ReferenceGradient(network(Backwards()), Regression(), REFERENCE).of(
        BACKPROP, euler(256)
    )
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
        ReferenceGradient(network(Explosive()), Regression(), REFERENCE).of(BACKPROP, euler(4))


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

    measured = ReferenceGradient(network(Wide()), Regression(), REFERENCE)
    few, many, adjoint = (
        measured.of(gradient, euler(steps))["memory_bytes"] / 2**20
        for gradient, steps in ((BACKPROP, 4), (BACKPROP, 64), (ADJOINT, 64))
    )
    assert many - few == pytest.approx(60, rel=0.2)
    assert adjoint < 15


# ----------------------------------------------------------------------------- batch statistics


def test_batch_norm_takes_the_batchs_statistics_where_it_is_asked_to() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(1, affine=False)

        def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
            out: Tensor = self.norm(y)
            return out

    outside = nn.BatchNorm1d(1)
    model = nn.Sequential(outside, *network(Normed())).eval()
    x = torch.tensor([[3.0], [5.0]])
    running = model(x)
    torch.testing.assert_close(running, x * 1.5**2, rtol=1e-4, atol=0)
    with batch_statistics(model):
        batch = model(x)
    torch.testing.assert_close(batch, x + 2 * torch.tensor([[-0.5], [0.5]]), rtol=1e-3, atol=0)
    torch.testing.assert_close(model(x), running)
    assert outside.num_batches_tracked == 0


# ----------------------------------------------------------------------- however a block is called


class Lively(nn.Module):
    """dy/dt = a cos(20 t) y, so that y(1) = y(0) exp(a sin(20) / 20)."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(6.0))
        self.evaluations = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.evaluations += y.dtype == torch.float64
        return self.a * torch.cos(20 * t) * y


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


# ------------------------------------------------------------- gradients of states, and backprop's


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
def test_the_error_of_the_states_gradient_is_that_of_the_closed_form(steps: int) -> None:
    for model in (network(), Scaled()):  # by a reference of many steps, and by its own solution
        row = ReferenceGradient(model, Regression(), REFERENCE).of(BACKPROP, euler(steps))
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
def test_exact_gradients_are_backprops_and_the_adjoint_is_not(gradient, solver, most) -> None:
    reference = ReferenceGradient(network(), Regression(), REFERENCE)
    assert reference.of(gradient, solver)["backprop_error"] < most
    assert reference.of(BACKPROP, solver)["backprop_error"] == 0
    assert reference.of(ADJOINT, euler(8))["backprop_error"] > 1e-2


def test_the_memory_of_a_gradient_is_counted_and_the_same_each_time() -> None:
    reference = ReferenceGradient(network(), Regression(), REFERENCE)
    found = [reference.of(BACKPROP, euler(n))["memory_bytes"] for n in (256, 64, 64)]
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
