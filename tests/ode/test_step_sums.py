"""Regularizers that sum what an error control computes: the local error and the stiffness."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nodebench.ode.adaptive.controlled import ControlledSolve
from nodebench.ode.block import ODEBlock, one_pass
from nodebench.ode.field import Field as OwnField
from nodebench.ode.tableau import EMBEDDED
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from nodebench.spec.training import STEP_SUMS
from nodebench.spec.vocabulary import METHODS
from tests.support.regularized import penalty
from tests.support.tiny_fields import Field, start

BOTH = {"local_error": 1.0, "stiffness": 1.0}
EMBEDDED_METHODS = [name for name, method in METHODS.items() if method.stepping == "embedded"]
WITH_TWO_AT_THE_END = [name for name in EMBEDDED_METHODS if EMBEDDED[name].c[-2:] == (1.0, 1.0)]


class Decay(OwnField):
    """f(t, y) = -3 y."""

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        return -3 * y


def steps_of(f: nn.Module, y0: Tensor, solver: Solver) -> list[tuple[float, float]]:
    """The time and the size of each accepted step."""
    found: list[tuple[float, float]] = []

    def note(t: Tensor, h: Tensor, *_: object) -> None:
        found.append((float(t), float(h)))

    def over_states(t: float | Tensor, y: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (f(t, y[0]),)

    solve = ControlledSolve(over_states, solver, (0.0, 1.0), on_accept=note)
    solve.reach(1.0, solve.start((y0,)))
    return found


def by_hand(
    f: Callable[..., Tensor], y: Tensor, steps: list[tuple[float, float]], solver: Solver
) -> dict[str, Tensor]:
    """Both sums along given steps, from the states of all stages; the mean over samples."""
    tableau = EMBEDDED[solver.method]
    errors, stiffness = torch.zeros(len(y)).double(), torch.zeros(len(y)).double()
    for t, h in steps:
        states, slopes = list[Tensor](), list[Tensor]()
        for weights, c in zip(tableau.a, tableau.c, strict=True):
            states.append(y + h * sum(w * k for w, k in zip(weights, slopes, strict=True)))
            slopes.append(f(t + c * h, states[-1]))
        other = [b - e for b, e in zip(tableau.b, tableau.e, strict=True)]
        less = y + h * sum(w * k for w, k in zip(other, slopes, strict=True))
        y = y + h * sum(w * k for w, k in zip(tableau.b, slopes, strict=True))
        errors = errors + (y - less).norm(dim=1) * abs(h)
        ratio = (slopes[-1] - slopes[-2]).norm(dim=1) / (states[-1] - states[-2]).norm(dim=1)
        stiffness = stiffness + ratio
    return {"local_error": errors.mean(), "stiffness": stiffness.mean()}


ROUNDING = {"dopri5": 1e-6, "tsit5": 1e-6, "dopri8": 1e-4}
"""The relative error by hand: dopri8's last two states are nearly equal, and are subtracted."""


@pytest.mark.parametrize("method", WITH_TWO_AT_THE_END)
def test_sums_and_their_gradients_are_those_of_the_accepted_steps(method: str) -> None:
    solver, y0 = Solver(method=method, tol=1e-4), start()
    block = ODEBlock(Field(), solver, Gradient())
    found, y = penalty(block, y0, BOTH)
    expected = by_hand(block.f, y0, steps_of(block.f, y0.detach(), solver), solver)
    for name in STEP_SUMS:
        torch.testing.assert_close(found.terms[name], expected[name], rtol=1e-7, atol=1e-15)
        weights = [*block.parameters(), y0]
        ours = torch.autograd.grad(found.terms[name], weights, retain_graph=True)
        theirs = torch.autograd.grad(expected[name], weights, retain_graph=True)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=ROUNDING[method], atol=1e-12)
    torch.testing.assert_close(y, block(y0), rtol=1e-12, atol=0)


def test_the_stiffness_of_a_linear_decay_is_its_rate() -> None:
    block = ODEBlock(Decay(), Solver(method="dopri5", tol=1e-6), Gradient())
    with one_pass(block) as counts:
        found, _ = penalty(block, start().detach(), {"stiffness": 1.0})
    assert counts.steps is not None
    expected = torch.tensor(3.0 * counts.steps.accepted, dtype=torch.float64)
    torch.testing.assert_close(found.terms["stiffness"], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", EMBEDDED_METHODS)
def test_every_embedded_method_estimates_its_error_without_further_evaluations(
    method: str,
) -> None:
    block = ODEBlock(Field(), Solver(method=method, tol=1e-3), Gradient())
    with one_pass(block) as plain:
        block(start())
    with one_pass(block) as regularized:
        found, _ = penalty(block, start(), {"local_error": 1.0})
    assert regularized == plain
    assert found.evaluations == 0
    assert 0 < found.terms["local_error"].item() < 1e-2


def test_a_sample_with_steps_of_its_own_has_the_sums_that_it_has_alone() -> None:
    solver = Solver(method="dopri5", tol=1e-4, control={"step": "sample"})
    block, y0 = ODEBlock(Field(), solver, Gradient()), 3 * start().detach()
    together = penalty(block, y0, BOTH)[0].terms
    alone = [penalty(block, sample[None], BOTH)[0].terms for sample in y0]
    for name in STEP_SUMS:
        mean = torch.stack([terms[name] for terms in alone]).mean()
        torch.testing.assert_close(together[name], mean, rtol=1e-6, atol=0)


def test_beside_integrals_they_are_those_of_the_state_alone() -> None:
    block = ODEBlock(Field(), Solver(method="dopri5", tol=1e-4), Gradient())
    alone, _ = penalty(block, start(), BOTH)
    beside, _ = penalty(block, start(), {**BOTH, "kinetic": 1.0})
    for name in STEP_SUMS:
        torch.testing.assert_close(beside.terms[name], alone.terms[name], rtol=1e-9, atol=0)


def test_a_state_without_a_batch_is_one_sample() -> None:
    block = ODEBlock(Decay(), Solver(method="dopri5", tol=1e-4), Gradient())
    y0 = start(1).detach()
    as_batch, alone = penalty(block, y0, BOTH)[0].terms, penalty(block, y0[0], BOTH)[0].terms
    torch.testing.assert_close(alone, as_batch)


def test_a_field_at_rest_has_sums_and_gradients_of_zero() -> None:
    block = ODEBlock(nn.Identity(), Solver(method="dopri5", tol=1e-3), Gradient())
    y0 = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    block.f.forward = lambda _t, y: 0 * y  # type: ignore[method-assign]
    found, _ = penalty(block, y0, BOTH)
    sum(found.terms.values()).backward()
    assert [term.item() for term in found.terms.values()] == [0, 0]
    assert y0.grad is not None
    assert y0.grad.isfinite().all()


def scaled(factor: float) -> Field:
    """The field with larger or smaller weights."""
    field = Field()
    with torch.no_grad():
        for weight in field.parameters():
            weight *= factor
    return field


@pytest.mark.parametrize("method", ["dopri5", "tsit5"])
def test_sums_in_float32_are_those_of_float64(method: str) -> None:
    found = {}
    for dtype in (torch.float64, torch.float32):
        block = ODEBlock(scaled(2).to(dtype), Solver(method=method, tol=1e-3), Gradient())
        terms = penalty(block, (3 * start()).detach().to(dtype), BOTH)[0].terms
        for name in STEP_SUMS:
            by_weights = torch.autograd.grad(terms[name], block.parameters(), retain_graph=True)
            parts = [part.flatten().double() for part in (terms[name], *by_weights)]
            found[name, dtype] = torch.cat(parts).detach()
    for name in STEP_SUMS:
        exact, rounded = found[name, torch.float64], found[name, torch.float32]
        assert (rounded - exact).norm() < 0.02 * exact.norm()


def test_a_stiffness_that_would_be_rounding_is_zero() -> None:
    block = ODEBlock(scaled(0.01).float(), Solver(method="dopri5", tol=1e-3), Gradient())
    terms = penalty(block, start().detach().float(), {"stiffness": 1.0})[0].terms
    assert terms["stiffness"].item() == 0


def test_methods_that_estimate_the_stiffness_have_two_stages_at_the_end() -> None:
    found = [name for name, method in METHODS.items() if method.estimates_stiffness]
    assert found == [name for name in WITH_TWO_AT_THE_END if name != "dopri8"]
