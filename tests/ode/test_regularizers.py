"""Regularizers along a solve: values against closed forms, gradients, counts and random numbers."""

from __future__ import annotations

import functools
import statistics
import warnings

import pytest
import torch
from torch import Tensor, nn

from nodebench.ode.block import ODEBlock, one_pass
from nodebench.ode.field import Field as OwnField
from nodebench.ode.regularizers.forward_mode import directional
from nodebench.ode.regularizers.table import REGULARIZERS, Regularizers
from nodebench.ode.regularizers.taylor import derivative
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from nodebench.spec.training import REGULARIZER_TERMS, Regularize
from nodebench.spec.vocabulary import GRADIENTS
from tests.support.regularized import ALL_TERMS, loss_of, penalty
from tests.support.tiny_fields import RK4, Field, rk4_for, start

FINE = Solver(method="rk4", steps=32)
FINE_ADAPTIVE = Solver(method="dopri5", tol=1e-8)
A = torch.tensor([[-0.5, 2.0, 0.1], [-1.0, -0.2, 0.4], [0.3, 0.0, 0.6]], dtype=torch.float64)


class Linear(nn.Module):
    """f(t, y) = A y."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(A.clone())

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        return y @ self.matrix.T


class Forced(OwnField):
    """f(t, y) = t³ y, whose derivatives along a solution have a part by time."""

    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        return t**3 * y


def energy(matrix: Tensor, y0: Tensor) -> Tensor:
    """The mean over samples of ∫ ‖matrix exp(A t) y0‖² dt over [0, 1], by Simpson's rule."""
    nodes = torch.linspace(0, 1, 2001, dtype=torch.float64)
    paths = torch.linalg.matrix_exp(A[None] * nodes[:, None, None]) @ y0.T
    squares = (matrix @ paths).square().sum(1).mean(1)
    simpson = torch.ones(2001, dtype=torch.float64)
    simpson[1:-1:2], simpson[2:-1:2] = 4, 2
    return (squares @ simpson) / 6000


@pytest.mark.parametrize("solver", [FINE, FINE_ADAPTIVE], ids=["rk4", "dopri5"])
@pytest.mark.parametrize(
    ("settings", "matrix"),
    [
        ({"kinetic": 1.0}, A),
        ({"taylor": {"order": 2, "weight": 1.0}}, A @ A),
        ({"taylor": {"order": 3, "weight": 1.0}}, A @ A @ A),
    ],
    ids=["kinetic", "taylor-2", "taylor-3"],
)
def test_a_term_of_a_linear_field_is_its_closed_form(
    settings: dict, matrix: Tensor, solver: Solver
) -> None:
    y0 = start().detach()
    found, _ = penalty(ODEBlock(Linear(), solver, Gradient()), y0, settings)
    [term] = found.terms.values()
    torch.testing.assert_close(term.detach(), energy(matrix, y0), rtol=1e-6, atol=0)


def test_the_jacobian_s_term_is_the_squared_product_with_its_noise() -> None:
    y0 = start(2000).detach()
    found, _ = penalty(ODEBlock(Linear(), RK4, Gradient()), y0, {"jacobian": 1.0})
    # J is constant: the integral over [0, 1] is ‖A ε‖², of which the mean over 2,000 samples has
    # the expectation ‖A‖² and the variance 2 ‖A Aᵀ‖² / 2000.
    expected = A.square().sum()
    deviation = (2 * (A @ A.T).square().sum() / 2000).sqrt()
    assert abs(found.terms["jacobian"] - expected) < 3 * deviation
    assert deviation < 0.05 * expected


def test_the_jacobian_s_term_is_unbiased_over_iterations() -> None:
    block, y0 = ODEBlock(Linear(), Solver(method="euler", steps=1), Gradient()), start(8).detach()
    terms = [
        penalty(block, y0, {"jacobian": 1.0}, n)[0].terms["jacobian"].item() for n in range(100)
    ]
    error = statistics.stdev(terms) / len(terms) ** 0.5
    assert abs(statistics.fmean(terms) - A.square().sum().item()) < 3 * error


@pytest.mark.parametrize("order", [2, 3, 4])
def test_derivatives_by_time_have_the_part_of_time_itself(order: int) -> None:
    t, y = 0.7, torch.tensor([[2.0]], dtype=torch.float64)
    found = derivative(Forced(), t, y, Forced()(t, y), order)
    # y' = t³ y; y'' = (3t² + t⁶) y; y''' = (6t + 9t⁵ + t⁹) y; y'''' by one more differentiation.
    by_order = {
        2: 3 * t**2 + t**6,
        3: 6 * t + 9 * t**5 + t**9,
        4: 6 + 51 * t**4 + 18 * t**8 + t**12,
    }
    assert found.item() == pytest.approx(2 * by_order[order], rel=1e-12)


BOUNDS = {"adjoint": 1e-4, "interpolated": 1e-4, "reversible": 1e-10}
"""Relative errors to backprop's gradient; of the others, rounding."""


@functools.cache
def regularized_gradient(name: str, solver: Solver) -> Tensor:
    """The gradient of the regularized loss by the start and the weights."""
    block, y0 = ODEBlock(Field(), solver, Gradient(name=name)), start()
    loss_of(block, y0).backward()
    parts = [y0.grad, *(p.grad for p in block.parameters())]
    return torch.cat([part.flatten() for part in parts if part is not None])


@pytest.mark.parametrize("name", [name for name in GRADIENTS if name != "backprop"])
def test_every_gradient_carries_every_term(name: str) -> None:
    steps = 8 if name in ("adjoint", "interpolated") else 4  # their own error falls with these
    solver = rk4_for(name, steps)  # the same method for both
    expected = regularized_gradient("backprop", solver)
    error = (regularized_gradient(name, solver) - expected).norm() / expected.norm()
    assert error < BOUNDS.get(name, 1e-12)


@pytest.mark.parametrize("name", ["aca", "adjoint", "interpolated", "symplectic", "recompute"])
def test_gradients_with_an_adaptive_solver_carry_every_term(name: str) -> None:
    solver = Solver(method="dopri5", tol=1e-6)
    expected = regularized_gradient("backprop", solver)
    assert (regularized_gradient(name, solver) - expected).norm() / expected.norm() < 1e-6


def test_a_solve_takes_the_steps_and_the_states_that_it_takes_without_regularizers() -> None:
    for solver in (RK4, Solver(method="dopri5", tol=1e-4)):
        block, y0 = ODEBlock(Field(), solver, Gradient()), start().detach()
        with one_pass(block) as plain:
            alone = block(y0)
        with one_pass(block) as regularized:
            found, along = penalty(block, y0, {"taylor": {"order": 2, "weight": 1.0}})
        # Its term is far larger than the state, and would need smaller steps.
        assert regularized == plain
        torch.testing.assert_close(alone, along, rtol=1e-13, atol=0)
        assert found.evaluations == plain.nfe


def test_without_a_training_step_nothing_is_regularized() -> None:
    block, y0 = ODEBlock(Field(), RK4, Gradient()), start().detach()
    before = block(y0)
    found, _ = penalty(block, y0, {**ALL_TERMS, "steer": 0.5})
    taken = found.evaluations
    with one_pass(block) as counts:
        assert torch.equal(block(y0), before)
    assert (block.regularization, found.evaluations) == (None, taken)
    assert counts.evaluations == [20]


@pytest.mark.parametrize(
    ("settings", "each"),
    [
        ({"kinetic": 1.0}, 0),
        ({"jacobian": 1.0}, 1),
        ({"taylor": {"order": 2, "weight": 1.0}}, 1),
        ({"taylor": {"order": 3, "weight": 1.0}}, 2),
        ({"steer": 0.5}, 0),
        (ALL_TERMS, 3),
    ],
)
def test_evaluations_for_terms_are_counted_apart(settings: dict, each: int) -> None:
    block = ODEBlock(Field(), RK4, Gradient(name="recompute"))
    with one_pass(block) as forward:
        found, y = penalty(block, start(), settings)
    assert forward.evaluations == [20]
    assert found.evaluations == 20 * each
    with one_pass(block) as backward:
        found.added_to(y.sum()).backward()
    assert backward.evaluations == [20]
    assert found.evaluations == 2 * 20 * each  # the backward pass takes them again


def test_terms_are_summed_over_blocks_and_averaged_over_samples() -> None:
    blocks = nn.Sequential(*(ODEBlock(Linear(), FINE, Gradient()) for _ in range(2)))
    y0 = start(4).detach()
    with Regularizers(Regularize(kinetic=0.5), 0).of_step(blocks, 0) as found:
        y = blocks(y0)
    between = (torch.linalg.matrix_exp(A) @ y0.T).T
    expected = energy(A, y0) + energy(A, between)
    torch.testing.assert_close(found.terms["kinetic"].detach(), expected, rtol=1e-6, atol=0)
    loss = found.added_to(y.sum())
    torch.testing.assert_close(loss, y.sum() + 0.5 * expected, rtol=1e-6, atol=0)


def test_a_state_without_a_batch_is_one_sample() -> None:
    block = ODEBlock(Linear(), FINE, Gradient())
    y0 = start(1).detach()
    with Regularizers(Regularize(kinetic=1.0), 0).of_step(block, 0) as found:
        states = block.trajectory(y0[0], (0.0, 0.5, 1.0))
    assert states.shape == (3, 3)
    torch.testing.assert_close(found.terms["kinetic"].detach(), energy(A, y0), rtol=1e-6, atol=0)


def ends(seed: int, iterations: int = 200) -> list[float]:
    times: list[float] = []
    block = ODEBlock(Field(), Solver(method="euler", steps=3), Gradient(), t1=2.0)
    block.on_solve = lambda solve: times.append(solve[2][-1])
    y0 = start(1).detach()
    for iteration in range(iterations):
        penalty(block, y0, {"steer": 0.5}, iteration, seed)
    assert block.evaluations == 3 * iterations  # as many steps to each end
    return times


def test_steer_ends_solves_uniformly_around_their_own_end() -> None:
    times = sorted(ends(0))
    assert 1.5 < times[0] < 1.53 and 2.47 < times[-1] < 2.5
    # Kolmogorov's distance from the uniform distribution; 1 % of samples exceed 1.63 / sqrt(n).
    distance = max(abs((t - 1.5) - (i + 0.5) / 200) for i, t in enumerate(times))
    assert distance < 1.63 / 200**0.5


def test_random_numbers_follow_from_the_seed_the_iteration_and_the_block() -> None:
    assert ends(0, 5) == ends(0, 5)
    assert not set(ends(0, 5)) & set(ends(1, 5))
    blocks = nn.Sequential(*(ODEBlock(Linear(), RK4, Gradient()) for _ in range(2)))
    times: list[float] = []
    for block in blocks:
        block.on_solve = lambda solve: times.append(solve[2][-1])
    penalty(blocks, start().detach(), {"steer": 0.5})
    assert times[0] != times[1]


def test_each_solve_of_a_step_has_noise_of_its_own() -> None:
    block = ODEBlock(Linear(), RK4, Gradient())
    with Regularizers(Regularize(jacobian=1.0), 0).of_step(block, 0) as found:
        block(start())
        block(start())
    both = found.terms["jacobian"]
    alone, _ = penalty(block, start(), {"jacobian": 1.0})
    assert both.item() != pytest.approx(2 * alone.terms["jacobian"].item())


def test_a_first_derivative_in_forward_mode_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = torch.tensor(2.0)
        assert directional(lambda x: x**3, (x,), (torch.ones(()),)).item() == 12.0


def test_every_regularizer_of_a_sweep_file_has_code() -> None:
    assert REGULARIZERS.keys() == Regularize.model_fields.keys()
    assert {*REGULARIZER_TERMS, "steer"} == REGULARIZERS.keys()
