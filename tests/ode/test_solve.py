from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from nodebench.errors import Diverged, NotConverged, StepUnderflow, TrialFailure
from nodebench.ode.block import ODEBlock
from nodebench.ode.solve import solve
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import METHODS, SCIPY_METHODS
from tests.support.ode_problems import (
    DECAY,
    LOGISTIC,
    PROBLEMS,
    ROTATION,
    TIME_DEPENDENT,
    Counted,
    Decay,
    Problem,
)  # fmt: skip

EMBEDDED = sorted(name for name, facts in METHODS.items() if facts.stepping == "embedded")


def error_at_one(problem: Problem, **settings: object) -> float:
    y = solve(Counted(problem.f), (problem.y0,), (0.0, 1.0), Solver(**settings)).states[-1][0]
    return (y - problem.exact(1.0)).abs().max().item()


def ones(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor]:
    return (torch.ones(*shape, dtype=dtype),)


# fehlberg2's estimate of its error is 1/512 of a difference of slopes, so it errs by far more.
NEAR = {"fehlberg2": 400.0}


# torchdiffeq steps past the end and interpolates there, with a polynomial which is far less
# accurate than the step for all methods but dopri5 (dopri8 at 1e-3 errs by 1.5e-2 instead of
# 8e-7): steps must end at the output times (its option `step_t`).
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
@pytest.mark.parametrize("method", EMBEDDED)
def test_adaptive_method_comes_near_its_tolerance(method: str, problem: Problem) -> None:
    for tol in (1e-3, 1e-5):
        assert error_at_one(problem, method=method, tol=tol) < NEAR.get(method, 6.0) * tol


@pytest.mark.parametrize("method", EMBEDDED)
def test_adaptive_method_stays_within_the_interval(method: str) -> None:
    seen: list[float] = []

    def f(t: float | Tensor, y: Tensor) -> Tensor:
        seen.append(float(t))
        return LOGISTIC.f(t, y)

    solve(Counted(f), (LOGISTIC.y0,), (0.0, 0.5, 1.0), Solver(method=method, tol=1e-3))
    assert 0 <= min(seen) <= max(seen) <= 1


@pytest.mark.parametrize("method", EMBEDDED)
def test_a_smaller_tolerance_costs_more_and_errs_less(method: str) -> None:
    coarse, fine = Counted(LOGISTIC.f), Counted(LOGISTIC.f)
    states = [
        solve(f, (LOGISTIC.y0,), (0.0, 3.0), Solver(method=method, tol=tol)).states[-1][0]
        for f, tol in ((coarse, 1e-2), (fine, 1e-6))
    ]
    errors = [(y - LOGISTIC.exact(3.0)).norm() for y in states]
    assert errors[1] < errors[0] / 50
    assert fine.calls > coarse.calls


def test_rtol_and_atol_are_not_mixed_up() -> None:
    small = Problem("small", ROTATION.f, ROTATION.y0 * 1e-6, lambda t: ROTATION.exact(t) * 1e-6)
    relative = error_at_one(small, method="dopri5", rtol=1e-6, atol=0)
    absolute = error_at_one(small, method="dopri5", rtol=0.1, atol=1e-6)
    assert relative < 1e-11 < 1e-9 < absolute


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6])
def test_dopri5_evaluates_twice_and_then_six_times_a_step(tol: float, dense: bool) -> None:
    f = Counted(lambda t, y: -20 * (y - torch.as_tensor(10 * t).cos()))
    solver = Solver(method="dopri5", tol=tol, dense_output=dense)
    _, counts = solve(f, ones(2), (0.0, 2.0), solver)
    assert counts is not None
    assert counts.accepted > 10
    assert f.calls == 2 + 6 * (counts.accepted + counts.rejected)


@pytest.mark.parametrize("method", EMBEDDED)
def test_adaptive_method_passes_through_several_times_and_backwards(method: str) -> None:
    times = (1.0, 0.6, 0.0)
    start = LOGISTIC.exact(1.0)
    states = solve(Counted(LOGISTIC.f), (start,), times, Solver(method=method, tol=1e-6)).states
    for t, (y,) in zip(times, states, strict=True):
        torch.testing.assert_close(y, LOGISTIC.exact(t), rtol=0, atol=NEAR.get(method, 6) * 1e-5)


# The coefficients of a multistep method hold for equal steps: a shorter last one, or another
# step after an output time with the history kept, leaves order two (decay, 64 steps of 1/64.5:
# 7e-6 instead of 2e-11).
@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 0.33, 1.0), (1.0, 0.33, 0.0)])
@pytest.mark.parametrize("by", ["steps", "step_size"])
@pytest.mark.parametrize("problem", [DECAY, TIME_DEPENDENT], ids=lambda problem: problem.name)
def test_implicit_adams_keeps_its_order_on_any_grid(
    problem: Problem, by: str, times: tuple[float, ...]
) -> None:
    def error(n: int) -> float:
        length = {"steps": n} if by == "steps" else {"step_size": 1 / (n + 0.5)}
        solver = Solver(method="implicit_adams", tol=1e-6, **length)
        start = problem.exact(times[0])
        y = solve(Counted(problem.f), (start,), times, solver).states[-1][0]
        return (y - problem.exact(times[-1])).abs().max().item()

    assert error(64) < error(16) / 4**3
    assert error(64) < 1e-7


def test_implicit_adams_that_does_not_converge_says_so() -> None:
    solver = Solver(method="implicit_adams", steps=10, tol=1e-8)
    with pytest.raises(NotConverged, match="did not converge"):
        solve(Counted(lambda _t, y: -50 * y), ones(2), (0.0, 1.0), solver)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("method", EMBEDDED)
def test_a_blow_up_before_the_end_is_a_failure_of_the_trial(
    method: str, dtype: torch.dtype
) -> None:
    solver = Solver(method=method, tol=1e-2)
    with pytest.raises((StepUnderflow, Diverged)):
        solve(Counted(lambda _t, y: y * y), ones(2, dtype=dtype), (0.0, 2.0), solver)


def test_underflow_names_the_step() -> None:
    solver = Solver(method="dopri5", tol=1e-4)
    with pytest.raises(StepUnderflow, match=r"fell to \d\.\de-1\d"):
        solve(Counted(lambda _t, y: y * y), ones(2), (0.0, 2.0), solver)


# torchdiffeq 0.2.5 replaces a step of nan by `min_step` = 0, so its message is
# `underflow in dt 0.0`, not `underflow in dt nan`.
@pytest.mark.parametrize("factor", [math.nan, math.inf])
@pytest.mark.parametrize("method", EMBEDDED)
def test_a_field_that_is_not_finite_diverges(method: str, factor: float) -> None:
    solver = Solver(method=method, tol=1e-4)
    with pytest.raises(Diverged):
        solve(Counted(lambda _t, y: y * factor), ones(2), (0.0, 1.0), solver)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "dopri5"},
        {"method": "dopri5", "dense_output": True},
        {"method": "implicit_adams", "steps": 8},
        *({"method": "scipy_solver", "scipy": scipy} for scipy in SCIPY_METHODS),
    ],
    ids=str,
)
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_a_field_that_is_or_becomes_nan_is_told_alike_by_every_solver_that_notices(
    settings: dict[str, object], start: float
) -> None:
    def f(t: float | Tensor, y: Tensor) -> Tensor:
        return -y if t < start else y * math.nan

    with pytest.raises(Diverged, match=r"^the right-hand side is inf or nan"):
        solve(Counted(f), ones(2), (0.0, 1.0), Solver(tol=1e-4, **settings))


def test_a_fixed_solve_returns_a_state_that_is_not_finite() -> None:
    y = solve(
        Counted(lambda _t, y: y * math.nan), ones(2), (0.0, 1.0), Solver(method="rk4", steps=2)
    ).states[-1][0]
    assert y.isnan().all()


def test_an_assertion_in_the_field_stays_what_it_is() -> None:
    def f(_t: float | Tensor, _y: Tensor) -> Tensor:
        raise AssertionError("a bug of ours")

    with pytest.raises(AssertionError, match="a bug of ours"):
        solve(Counted(f), ones(2), (0.0, 1.0), Solver(method="dopri5", tol=1e-4))


class BlowUp(Decay):
    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        return self.rate * y * y


@pytest.mark.parametrize("scipy", SCIPY_METHODS)
def test_scipy_trains_a_block_by_the_adjoint(scipy: str) -> None:
    solver = Solver(method="scipy_solver", scipy=scipy, tol=1e-6)
    block = ODEBlock(Decay(0.8), solver, Gradient(name="adjoint"), t1=1.5)
    y0 = torch.tensor([[1.0, -0.5], [2.0, 0.3]], dtype=torch.float64, requires_grad=True)
    y = block(y0)
    forward = block.evaluations
    y.sum().backward()
    assert 0 < forward < block.evaluations
    decay = math.exp(-0.8 * 1.5)
    torch.testing.assert_close(y, y0 * decay, rtol=0, atol=1e-4)
    assert y0.grad is not None
    assert block.f.rate.grad is not None
    torch.testing.assert_close(y0.grad, torch.full_like(y0, decay), rtol=0, atol=1e-4)
    assert block.f.rate.grad.item() == pytest.approx(-1.5 * decay * 2.8, abs=1e-3)


# solve_ivp reports a failure by its status, which torchdiffeq does not read: it returns the
# outputs that were reached, and the reshape to all of them fails.
@pytest.mark.parametrize("scipy", ["RK45", "BDF"])
def test_scipys_failure_is_a_failure_of_the_trial(scipy: str) -> None:
    solver = Solver(method="scipy_solver", scipy=scipy, tol=1e-4)
    block = ODEBlock(BlowUp(1.0), solver, Gradient(name="adjoint"), t1=2.0)
    with pytest.raises((StepUnderflow, Diverged)):
        block(torch.ones(2, dtype=torch.float64))


# Without a check in the field, RK23, RK45 and DOP853 never return here (hence the cap), Radau
# and BDF raise ValueError, and LSODA returns nan.
@pytest.mark.parametrize("scipy", SCIPY_METHODS)
def test_scipy_diverges_in_a_field_that_is_not_finite(scipy: str) -> None:
    solver = Solver(method="scipy_solver", scipy=scipy, tol=1e-4)
    block = ODEBlock(Decay(math.nan), solver, Gradient(name="adjoint"))
    block.max_evaluations = 1000
    with pytest.raises(Diverged):
        block(torch.ones(2, dtype=torch.float64))


def test_a_failure_in_the_backward_solve_keeps_its_kind() -> None:
    class Trap(nn.Module):
        backward = False

        def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
            return y * y * (1e3 if self.backward else -1e-3)

    trap = Trap()
    block = ODEBlock(trap, Solver(method="dopri5", tol=1e-4), Gradient(name="adjoint"))
    y = block(torch.full((2,), -1.0, dtype=torch.float64, requires_grad=True))
    trap.backward = True
    with pytest.raises(TrialFailure):
        y.sum().backward()


def test_implicit_adams_has_order_five() -> None:
    errors = [
        error_at_one(DECAY, method="implicit_adams", steps=steps, tol=1e-6) for steps in (32, 128)
    ]
    assert math.log(errors[0] / errors[1], 4) == pytest.approx(5, abs=0.05)
    assert Solver(method="implicit_adams", steps=1).order == 5


def test_scipys_order_is_its_methods() -> None:
    for scipy, order in (("RK23", 3), ("RK45", 5), ("DOP853", 8), ("Radau", 5), ("BDF", None)):
        assert Solver(method="scipy_solver", scipy=scipy, tol=1e-3).order == order
    assert Solver(method="scipy_solver", scipy="LSODA", tol=1e-3).order is None
