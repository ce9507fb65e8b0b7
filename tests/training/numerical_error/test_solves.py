"""Tests of training/numerical_error/solves.py on fields with closed-form solutions."""

from __future__ import annotations

import copy
import functools
import math

import pytest
import torch
from torch import Tensor

from nodebench.ode.block import ODEBlock, ode_blocks
from nodebench.ode.field import Field
from nodebench.spec.solver import Solver
from nodebench.training.numerical_error.gradients import ReferenceGradient
from nodebench.training.numerical_error.solves import ReferenceSolves
from tests.support.closed_forms import (
    ADJOINT,
    BACKPROP,
    DECAY,
    REFERENCE,
    Linear,
    Regression,
    euler,
    network,
    slope,
)


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


class Swinging(Field):
    """dy/dt = 6 cos(20 t) y."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def forward(self, t: float, y: Tensor) -> Tensor:
        self.times.append(t)
        return y * (6 * math.cos(20 * t))


@functools.cache
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
    # The references, of 256, 1,024 and 4,096 steps, with their halves.
    steps_of_references = 1.5 * (256 + 1024 + 4096)
    times = ode_blocks(errors.model)[0].f.times
    assert len(times) <= 4 * (steps_of_references + steps)


def test_no_solve_is_taken_twice() -> None:
    errors = ReferenceSolves(network(Swinging()), Regression(), REFERENCE)
    times = ode_blocks(errors.model)[0].f.times
    assert len(times) == 4 * (256 + 128)  # the first gave the blocks their inputs too
    assert errors.reference._levels[0].own_error < 1e-6
    found = errors.under(euler(8))
    assert errors.order(euler(8)) is not None
    assert errors.under(euler(8)) == found == pytest.approx(true_error(euler(8)), rel=1e-5)
    assert len(times) == 4 * (256 + 128) + 8 + 16 + 32
    assert errors.under(Solver(method="rk4_38", steps=512)) is not None  # needs a finer reference
    before = len(times)
    assert errors.under(euler(8)) == found
    assert len(times) == before


def test_an_error_does_not_depend_on_what_was_measured_before() -> None:
    """So that an evaluation that was interrupted, or grew, has the bits of one in one go."""
    solvers = [Solver(method="rk4_38", steps=steps) for steps in (64, 200, 512)]
    found = []
    for order in (solvers, solvers[::-1]):
        errors = ReferenceSolves(network(Swinging()), Regression(), REFERENCE)
        found.append({solver: errors.under(solver) for solver in order})
    assert len(errors.reference._levels) > 1  # the finest solver needs a finer reference
    assert None not in found[0].values()
    assert found[0] == found[1]


def test_a_reference_near_a_kink_is_not_taken_for_better_than_it_is() -> None:
    class Kinked(Field):
        def forward(self, t: float, y: Tensor) -> Tensor:
            return 0 * y + 4 * max(t - 0.3, 0)

    errors = ReferenceSolves(network(Kinked()), Regression(), REFERENCE)
    y0 = Regression().sample(8).double()
    exact = y0 + 2 * 0.7**2
    for steps in (2, 8, 64, 300, 1000, 3000):
        solver = Solver(method="rk4", steps=steps)
        true = ((ODEBlock(Kinked(), solver, BACKPROP)(y0) - exact).norm() / exact.norm()).item()
        found = errors.under(solver)
        assert found is None or found == pytest.approx(true, rel=0.15)
        assert found is not None or steps > 64


def test_errors_of_several_blocks_do_not_add_up() -> None:
    one, three = network(), network(Linear(), Linear(), Linear())
    single, several = (
        ReferenceSolves(model, Regression(), REFERENCE).under(euler(4)) for model in (one, three)
    )
    assert several == pytest.approx(single, rel=1e-6)


def test_measuring_leaves_the_model_as_it_was() -> None:
    model = network()
    block = ode_blocks(model)[0]
    block.max_evaluations, before = 10, copy.deepcopy(model.state_dict())
    assert ReferenceSolves(model, Regression(), REFERENCE).under(euler(8)) is not None
    ReferenceGradient(model, Regression(), REFERENCE).of(ADJOINT, euler(4))
    assert (block.solver, block.gradient, block.max_evaluations) == (euler(2), BACKPROP, 10)
    assert block.f.a.grad is None
    assert block.f.a.dtype == torch.float32
    assert {k: v.item() for k, v in model.state_dict().items()} == {
        k: v.item() for k, v in before.items()
    }


def test_a_solve_that_fails_has_no_error() -> None:
    model = network()
    ode_blocks(model)[0].max_evaluations = 10
    errors = ReferenceSolves(model, Regression(), REFERENCE)
    assert errors.under(euler(11)) is None
    assert errors.under(euler(10)) is not None
