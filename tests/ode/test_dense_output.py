"""Tests of `dense_output`: states between steps, interpolated by torchdiffeq."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nodebench.ode.block import ODEBlock
from nodebench.ode.by_torchdiffeq import _Watched
from nodebench.ode.solve import solve
from nodebench.spec import TrialSpec
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from tests.support.ode_problems import LOGISTIC, PROBLEMS, Counted, Decay

TIMES = tuple(3.0 * i / 200 for i in range(201))
# The greatest error at 200 times over that at the ends of the steps, at a tolerance of 1e-3 and of
# 1e-6, over four problems; and evaluations for the logistic equation at 1e-3.
LOSSES = {
    "adaptive_heun": (1.0, 1.0, 37), "fehlberg2": (1.3, 1.8, 16), "bosh3": (9.4, 147, 32),
    "dopri5": (17.3, 2.0, 38), "dopri8": (76, 945, 54),
}  # fmt: skip


@pytest.mark.parametrize("method", LOSSES)
def test_dense_output_costs_what_docs_networks_md_says(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[float, Tensor]] = []
    look = _Watched.callback_step

    def noted(self: _Watched, t: Tensor, y: tuple[Tensor], step: Tensor) -> None:
        steps.append((float(t), y[0]))
        look(self, t, y, step)

    monkeypatch.setattr(_Watched, "callback_step", noted)
    for tol, loss in zip((1e-3, 1e-6), LOSSES[method], strict=False):
        found = []
        for problem in PROBLEMS:
            steps.clear()
            f, solver = Counted(problem.f), Solver(method=method, tol=tol, dense_output=True)
            states = [y for (y,) in solve(f, (problem.y0,), TIMES, solver).states]
            at_times, at_steps = (
                [(y - problem.exact(t)).abs().max() for t, y in pairs]
                for pairs in (zip(TIMES, states, strict=True), steps)
            )
            found.append(max(at_times) / max(*at_steps, at_times[-1]))
            if tol == 1e-3 and problem is LOGISTIC:
                assert f.calls == LOSSES[method][2]
        assert max(found) == pytest.approx(loss, rel=0.05)


def test_only_dense_output_spares_evaluations_at_many_times() -> None:
    calls = {}
    for dense in (False, True):
        f = Counted(LOGISTIC.f)
        solve(f, (LOGISTIC.y0,), TIMES, Solver(method="dopri5", tol=1e-3, dense_output=dense))
        calls[dense] = f.calls
    assert calls == {False: 1202, True: 38}


@pytest.mark.parametrize("name", ["backprop", "recompute", "adjoint"])
def test_a_gradient_flows_through_interpolated_states(name: str) -> None:
    solver = Solver(method="dopri5", tol=1e-8, dense_output=True)
    block = ODEBlock(Decay(0.8), solver, Gradient(name=name))
    y0 = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    times = (0.0, 0.37, 1.1, 2.0)
    block.trajectory(y0, times).sum().backward()
    assert y0.grad.item() == pytest.approx(sum(math.exp(-0.8 * t) for t in times), abs=1e-5)
    by_rate = sum(-t * math.exp(-0.8 * t) for t in times)
    assert block.f.rate.grad.item() == pytest.approx(by_rate, abs=1e-5)


def test_dense_output_stays_within_the_interval_backwards_too() -> None:
    seen: list[float] = []

    def f(t: float | Tensor, y: Tensor) -> Tensor:
        seen.append(float(t))
        return LOGISTIC.f(t, y)

    solver = Solver(method="dopri5", tol=1e-6, dense_output=True)
    states = solve(Counted(f), (LOGISTIC.exact(1.0),), (1.0, 0.7, 0.0), solver).states
    assert 0 <= min(seen) <= max(seen) <= 1
    torch.testing.assert_close(states[-1][0], LOGISTIC.y0, rtol=0, atol=1e-4)


def test_dense_output_is_refused_where_it_does_nothing() -> None:
    assert Solver(method="dopri5", dense_output=False) == Solver(method="dopri5")
    with pytest.raises(ValueError, match="`dense_output` is for adaptive methods; `rk4` is fixed"):
        Solver(method="rk4", steps=4, dense_output=True)
    with pytest.raises(ValueError, match="`scipy_solver` interpolates already"):
        Solver(method="scipy_solver", dense_output=True)
    dense = {"method": "dopri5", "dense_output": True}
    with pytest.raises(ValueError, match="stops at every time"):
        Gradient(name="adjoint", solver=dense)
    with pytest.raises(ValueError, match="`plainode`, whose ODE has one output time"):
        TrialSpec(data="spheres", model="plainode", solver=dense)
    assert TrialSpec(data="spiral", model="neuralode", solver=dense).solver.dense_output
