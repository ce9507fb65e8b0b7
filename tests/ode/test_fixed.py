from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

from nodebench.ode.fixed import Grid, integrate
from nodebench.ode.solve import solve
from nodebench.ode.steppers.runge_kutta import RungeKutta
from nodebench.ode.steppers.stepper import State
from nodebench.ode.tableau import TABLEAUS
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import METHODS
from tests.support.ode_problems import PROBLEMS, Problem

FIXED = list(TABLEAUS)
CLASSIC = RungeKutta(TABLEAUS["rk4"])
# Their name in torchdiffeq, where `rk4` is the 3/8 rule.
ORACLES = {
    "euler": "euler", "midpoint": "midpoint", "heun2": "heun2", "heun3": "heun3", "rk4_38": "rk4",
}  # fmt: skip


class TimeField(nn.Module):
    """tanh(y W + t b), which is neither linear nor autonomous."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 3, generator=generator, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(3, generator=generator, dtype=torch.float64))

    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        return torch.tanh(y @ self.weight + t * self.bias)


def start() -> Tensor:
    return torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3).requires_grad_()


def solution(problem: Problem, times: Sequence[float], **settings: object) -> list[Tensor]:
    states = solve(
        lambda t, y: (problem.f(t, y[0]),), (problem.y0,), times, Solver(**settings)
    ).states
    return [y for (y,) in states]


def slope(steps: Sequence[int], errors: Sequence[float]) -> float:
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])


@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 0.5, 0.75, 2.0), (1.0, -0.5)])
@pytest.mark.parametrize("method", ORACLES)
def test_values_and_gradients_are_torchdiffeqs(method: str, times: tuple[float, ...]) -> None:
    f, weights = TimeField(), torch.linspace(1, 2, len(times) * 6, dtype=torch.float64)
    solver = Solver(method=method, step_size=0.125)
    y0 = start()
    ours = torch.stack(
        [y for (y,) in solve(lambda t, y: (f(t, y[0]),), (y0,), times, solver).states]
    )
    our_gradients = torch.autograd.grad(ours.flatten() @ weights, (y0, f.weight, f.bias))
    y0 = start()
    theirs = torchdiffeq.odeint(
        f,
        y0,
        torch.tensor(times, dtype=torch.float64),
        method=ORACLES[method],
        options={"step_size": 0.125},
    )
    their_gradients = torch.autograd.grad(theirs.flatten() @ weights, (y0, f.weight, f.bias))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    torch.testing.assert_close(our_gradients, their_gradients, rtol=0, atol=1e-10)


def test_our_rk4_is_not_torchdiffeqs() -> None:
    f, y0 = TimeField(), start()
    theirs = torchdiffeq.odeint(
        f, y0, torch.tensor([0.0, 1.0], dtype=torch.float64), method="rk4", options={"step_size": 1}
    )
    ours = integrate(lambda t, y: (f(t, y[0]),), (y0,), [[0.0, 1.0]], CLASSIC)[-1][0]
    assert (ours - theirs[-1]).abs().max() > 1e-5


def test_rk4_is_the_classic_method() -> None:
    def f(t: float, y: float) -> float:
        return t - y * y

    h, y = 0.25, 0.5
    k1 = f(1, y)
    k2 = f(1 + h / 2, y + h / 2 * k1)
    k3 = f(1 + h / 2, y + h / 2 * k2)
    k4 = f(1 + h, y + h * k3)
    expected = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    y0 = (torch.tensor(y, dtype=torch.float64),)
    ((_,), (found,)) = integrate(lambda t, y: (t - y[0] * y[0],), y0, [[1.0, 1.25]], CLASSIC)
    assert found.item() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
@pytest.mark.parametrize("method", FIXED)
def test_method_converges_with_its_order(method: str, problem: Problem) -> None:
    steps = (32, 64, 128)
    errors = [
        (solution(problem, (0.0, 1.0), method=method, steps=n)[-1] - problem.exact(1.0))
        .norm()
        .item()
        for n in steps
    ]
    assert slope(steps, errors) == pytest.approx(METHODS[method].order, abs=0.15)


def _order_conditions(method: str) -> dict[int, list[float]]:
    """The residuals of Butcher's conditions, by order."""
    tableau = TABLEAUS[method]
    n = len(tableau.b)
    a = np.zeros((n, n))
    for i, row in enumerate(tableau.a):
        a[i, : len(row)] = row
    b, c = np.array(tableau.b), np.array(tableau.c)
    np.testing.assert_allclose(a.sum(1), c, atol=1e-15)
    return {
        1: [b.sum() - 1],
        2: [b @ c - 1 / 2],
        3: [b @ c**2 - 1 / 3, b @ a @ c - 1 / 6],
        4: [
            b @ c**3 - 1 / 4,
            b @ (c * (a @ c)) - 1 / 8,
            b @ a @ c**2 - 1 / 12,
            b @ a @ a @ c - 1 / 24,
        ],
        5: [b @ c**4 - 1 / 5],
    }


@pytest.mark.parametrize("method", FIXED)
def test_tableau_meets_the_conditions_of_its_order_and_not_of_the_next(method: str) -> None:
    residuals, order = _order_conditions(method), METHODS[method].order
    for p in range(1, order + 1):
        assert max(map(abs, residuals[p])) < 1e-14
    assert max(map(abs, residuals[order + 1])) > 1e-3


@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 0.25, 1.0), (2.0, 0.0)])
@pytest.mark.parametrize("method", FIXED)
def test_evaluations_are_steps_times_stages_per_interval(
    method: str, times: tuple[float, ...]
) -> None:
    seen: list[float | Tensor] = []

    def f(t: float | Tensor, y: State) -> State:
        seen.append(t)
        return y

    solve(f, (torch.ones(1),), times, Solver(method=method, steps=7))
    stages = METHODS[method].stages
    assert stages is not None
    assert len(seen) == 7 * stages * (len(times) - 1)
    assert all(isinstance(t, float) for t in seen)
    assert min(times) - 1e-12 <= min(seen) <= max(seen) <= max(times) + 1e-12


@pytest.mark.parametrize(
    ("span", "step_size", "steps"),
    [
        (1.0, 0.1, 10), (0.3, 0.1, 3), (0.7, 0.1, 7), (1.0, 1 / 3, 3), (1.0, 0.3, 4),
        (1.0, 0.7, 2), (0.5, 1.0, 1), (1.0, 1e-3, 1000), (18.87, 1e-3, 18870),
        (1.0, 0.1 - 1e-6, 11), (1.0, 0.1 - 1e-12, 10),
    ],
)  # fmt: skip
def test_a_step_size_makes_as_many_steps_as_cover_the_span(
    span: float, step_size: float, steps: int
) -> None:
    assert Solver(method="euler", step_size=step_size).step_count(span) == steps


def test_the_last_step_is_shorter_where_the_step_size_does_not_divide_the_span() -> None:
    assert list(Grid(0.0, 1.0, 4, 0.3)) == pytest.approx([0.0, 0.3, 0.6, 0.9, 1.0])
    assert list(Grid(1.0, 0.0, 4, 0.3)) == pytest.approx([1.0, 0.7, 0.4, 0.1, 0.0])
    y0 = (torch.ones(1, dtype=torch.float64),)
    solver = Solver(method="euler", step_size=0.3)
    y = solve(lambda _t, y: y, y0, (0.0, 1.0), solver).states[-1][0]
    assert y.item() == pytest.approx(1.3**3 * 1.1, rel=1e-14)


@pytest.mark.parametrize(("t0", "t1"), [(0.0, 1.0), (0.1, 0.7), (1.0, -2.0)])
def test_a_grid_begins_and_ends_exactly_and_is_even(t0: float, t1: float) -> None:
    for steps in (1, 3, 10, 49):
        times = list(Grid(t0, t1, steps))
        assert (times[0], times[-1], len(times)) == (t0, t1, steps + 1)
        widths = [after - before for before, after in itertools.pairwise(times)]
        assert widths == pytest.approx([(t1 - t0) / steps] * steps)


def test_step_size_and_steps_agree_where_they_mean_the_same() -> None:
    for problem in PROBLEMS:
        by_count = solution(problem, (0.0, 1.0), method="rk4", steps=10)[-1]
        by_size = solution(problem, (0.0, 1.0), method="rk4", step_size=0.1)[-1]
        torch.testing.assert_close(by_count, by_size, rtol=1e-14, atol=0)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_several_output_times_are_each_reached(problem: Problem) -> None:
    times = (0.0, 0.1, 0.75, 1.3)
    found = solution(problem, times, method="rk4", steps=32)
    assert torch.equal(found[0], problem.y0)
    for t, y in zip(times, found, strict=True):
        torch.testing.assert_close(y, problem.exact(t), rtol=0, atol=1e-5)


def test_steps_are_laid_from_each_output_time_to_the_next() -> None:
    y0 = (torch.ones(1, dtype=torch.float64),)
    times = (0.0, 0.5, 0.6, 2.0)
    by_count = solve(lambda _t, y: y, y0, times, Solver(method="euler", steps=2)).states
    assert [y.item() for (y,) in by_count] == pytest.approx(
        [1, 1.25**2, 1.25**2 * 1.05**2, 1.25**2 * 1.05**2 * 1.7**2]
    )
    by_size = solve(lambda _t, y: y, y0, times, Solver(method="euler", step_size=0.25)).states
    assert [y.item() for (y,) in by_size] == pytest.approx(
        [1, 1.25**2, 1.25**2 * 1.1, 1.25**2 * 1.1 * 1.25**5 * 1.15]
    )


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
@pytest.mark.parametrize("method", FIXED)
def test_going_back_in_time_undoes_going_forward(method: str, problem: Problem) -> None:
    def gap(steps: int) -> float:
        solver = Solver(method=method, steps=steps)

        def f(t: float | Tensor, y: State) -> State:
            return (problem.f(t, y[0]),)

        there = solve(f, (problem.y0,), (0.0, 1.0), solver).states[-1]
        back = solve(f, there, (1.0, 0.0), solver).states[-1][0]
        return (back - problem.y0).norm().item()

    steps = (64, 128, 256)
    assert slope(steps, [gap(n) for n in steps]) > METHODS[method].order - 0.15


def test_a_state_of_several_tensors_is_moved_as_one() -> None:
    def f(_t: float | Tensor, state: State) -> State:
        position, velocity = state
        return velocity, -position

    y0 = (torch.tensor([1.0], dtype=torch.float64), torch.tensor([0.0], dtype=torch.float64))
    position, velocity = solve(f, y0, (0.0, 1.0), Solver(method="rk4", steps=64)).states[-1]
    assert position.item() == pytest.approx(math.cos(1), abs=1e-8)
    assert velocity.item() == pytest.approx(-math.sin(1), abs=1e-8)
