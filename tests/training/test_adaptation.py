from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nodebench.errors import Diverged, EvaluationLimit, StepUnderflow
from nodebench.ode.block import ODEBlock
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from nodebench.training.adaptation import (
    StepAdaptation,
    ToleranceAdaptation,
    initial_step_size,
)
from nodebench.training.task import Loss


def step(h: float, method: str = "euler", **adapt: object) -> StepAdaptation:
    solver = Solver(method=method, step_size=h, adapt=adapt)
    return StepAdaptation(ODEBlock(nn.Identity(), solver, Gradient()), solver)


def tolerance(tol: float, method: str = "dopri5") -> ToleranceAdaptation:
    solver = Solver(method=method, tol=tol, adapt={})
    return ToleranceAdaptation(ODEBlock(nn.Identity(), solver, Gradient()), solver)


def constant(value: float, count: int = 1) -> Callable[[Solver], tuple[float, int]]:
    return lambda _solver: (value, count)


# --------------------------------------------------------------------------------- step sizes


def test_a_gap_above_the_threshold_halves_the_step() -> None:
    assert step(0.5).adapted(0.9, 8, constant(0.7)).step_size == 0.25
    assert step(0.5).adapted(0.7, 8, constant(0.9)).step_size == 0.25


def test_without_a_gap_a_tenth_larger_step_is_kept() -> None:
    assert step(0.5).adapted(0.9, 8, constant(0.85)).step_size == pytest.approx(0.55)
    assert step(0.95).adapted(0.9, 8, constant(0.9)).step_size == 1.0


def test_a_larger_step_with_a_gap_is_taken_back() -> None:
    def accuracy(solver: Solver) -> tuple[float, int]:
        return (0.9 if solver.method == "midpoint" else 0.7), 1

    assert step(0.5).adapted(0.9, 8, accuracy).step_size == 0.5


@pytest.mark.parametrize(
    ("method", "h", "reference", "expected"),
    [
        ("euler", 0.1, "midpoint", (0.1 / 50) ** 0.5),
        ("euler", 0.01, "midpoint", 0.01),
        ("midpoint", 0.5, "rk4_38", (0.25 / 50) ** 0.25),
        ("midpoint", 0.1, "rk4_38", 0.1),
    ],
)
def test_the_reference_is_the_papers_method_with_its_step(
    method: str, h: float, reference: str, expected: float
) -> None:
    solver = step(h, method).reference()
    assert solver.method == reference
    assert solver.step_size == pytest.approx(expected)


def test_steps_approach_their_limit_and_the_limit_is_flagged() -> None:
    adaptation = step(1 / 200)
    adaptation.solver = adaptation.adapted(0.9, 8, constant(0.0))
    assert 1 / adaptation.step_size == pytest.approx(400)
    adaptation.solver = adaptation.adapted(0.9, 8, constant(0.0))
    assert 1 / adaptation.step_size == pytest.approx(450)
    assert adaptation.end_epoch()["at_step_limit"] == 0
    for _ in range(10):
        adaptation.solver = adaptation.adapted(0.9, 8, constant(0.0))
    assert adaptation.solver.step_count(1.0) == 500
    assert adaptation.end_epoch()["at_step_limit"] == 1


def test_the_first_step_of_a_linear_field_is_the_rules() -> None:
    class Scaled(nn.Module):
        def forward(self, _t: float, y: Tensor) -> Tensor:
            return -3 * y

    y0 = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    # d0 = mean(5, 1) = 3, d1 = 9, g = 0.01 * 3/9; f(y0 + g f) - f = 9 g y0, so d2 = 27.
    g, h1 = 0.01 / 3, (0.01 / 27) ** 0.5
    assert initial_step_size(Scaled(), y0, order=1) == pytest.approx(min(100 * g, h1))
    assert initial_step_size(Scaled(), y0, order=2) == pytest.approx((0.01 / 27) ** (1 / 3))


def test_a_field_that_stands_still_gets_a_tiny_first_step() -> None:
    class Still(nn.Module):
        def forward(self, _t: float, y: Tensor) -> Tensor:
            return torch.zeros_like(y)

    assert initial_step_size(Still(), torch.ones(2, 3), order=1) == pytest.approx(1e-6)


# --------------------------------------------------------------------------------- tolerances


def test_a_gap_halves_the_tolerance_and_none_raises_it_by_a_tenth() -> None:
    counts = iter(range(10, 100))

    def accuracy(value: float) -> Callable[[Solver], tuple[float, int]]:
        return lambda _solver: (value, next(counts))

    assert tolerance(1e-3).adapted(0.9, 8, accuracy(0.5)).tol == pytest.approx(5e-4)
    assert tolerance(1e-3).adapted(0.9, 8, accuracy(0.9)).tol == pytest.approx(1.1e-3)


@pytest.mark.parametrize(("method", "fraction"), [("fehlberg2", 5), ("dopri5", 10)])
def test_the_reference_is_made_finer_until_it_takes_more_evaluations(
    method: str, fraction: float
) -> None:
    asked: list[Solver] = []

    def accuracy(solver: Solver) -> tuple[float, int]:
        asked.append(solver)
        finest = solver.method == "dopri5" and solver.tolerances[0] < 1e-3 / fraction / 50
        return (0.5 if finest else 0.9), (14 if finest else 8)

    assert tolerance(1e-3, method).adapted(0.9, 8, accuracy).tol == pytest.approx(5e-4)
    expected = [1e-3 / fraction / 10**i for i in range(3)]
    assert {solver.method for solver in asked} == {"dopri5"}
    assert [solver.tolerances[0] for solver in asked] == pytest.approx(expected)


@pytest.mark.parametrize("failure", [StepUnderflow, EvaluationLimit, Diverged])
@pytest.mark.parametrize("finest", [1e-2, 5e-6], ids=["the-first", "a-later-one"])
def test_where_a_reference_fails_the_last_one_stands(failure: type, finest: float) -> None:
    def accuracy(solver: Solver) -> tuple[float, int]:
        if solver.tolerances[0] < finest and solver.tolerances[0] != pytest.approx(1.1e-4):
            raise failure("too fine")
        return 0.9, 8

    assert tolerance(1e-4).adapted(0.9, 8, accuracy).tol == pytest.approx(1.1e-4)


def test_no_reference_is_finer_than_floating_point() -> None:
    asked: list[float] = []

    def accuracy(solver: Solver) -> tuple[float, int]:
        asked.append(solver.tolerances[0])
        return 0.9, 2  # as of a field that stands still

    tolerance(1e-4).adapted(0.9, 8, accuracy)
    assert asked == pytest.approx([1e-5, 1e-6, 1.1e-4])


class Batch:
    """A task and a model of one batch, whose evaluations and accuracies are made up.

    Training takes `training` evaluations, a larger tolerance `larger`, and a reference as many as
    it needs; under the reference, the accuracy is off by a `gap`.
    """

    def __init__(self) -> None:
        self.adaptation = tolerance(1e-6)
        self.block = ODEBlock(nn.Identity(), self.adaptation.solver, Gradient())
        self.larger, self.gap = 20, 0.0

    def loss(self, _model: nn.Module, _batch: object) -> Loss:
        is_larger = self.block.solver.tolerances[0] > self.adaptation.solver.tolerances[0]
        self.block.evaluations += self.larger if is_larger else 1000
        accuracy = 0.9 if is_larger else 0.9 - self.gap
        return Loss(torch.zeros(()), 100, {"accuracy": torch.tensor(100 * accuracy)})

    def iteration(self, number: int, training: int) -> float:
        """The tolerance after an iteration of training."""
        loss = Loss(torch.zeros(()), 100, {"accuracy": torch.tensor(90.0)})
        self.adaptation.after_backward(self.block, self, None, loss, training, number)
        return self.adaptation.solver.tolerances[0]


def otts_tolerances(training: list[int], larger: list[int], gaps: list[float]) -> list[float]:
    """The tolerances after each iteration, by the rules of Ott et al.'s algorithm, one by one."""
    tol, tols = 1e-6, []
    for iteration in range(len(training)):
        if (iteration + 1) % 50 == 0:
            check = iteration // 50
            last_five = training[iteration - 5 : iteration]
            if gaps[check] > 0.1:
                tol = 0.5 * tol
            elif not all(larger[check] == evaluations for evaluations in last_five):
                tol = 1.1 * tol
        tols.append(tol)
    return tols


def test_with_constant_evaluations_the_tolerance_stays_where_it_starts() -> None:
    batch = Batch()
    tols = [batch.iteration(number, training=20) for number in range(500)]
    assert set(tols) == {1e-6}
    assert tols == otts_tolerances([20] * 500, [20] * 10, [0.0] * 10)


@pytest.mark.parametrize("is_resumed", [False, True], ids=["at-once", "resumed"])
def test_tolerances_follow_from_the_evaluations_as_worked_out_by_hand(*, is_resumed: bool) -> None:
    # Of each check: evaluations of the five iterations before it, of its own iteration, and of
    # the larger tolerance; the gap; and the tolerance that follows.
    checks = [
        ([20] * 5, 20, 20, 0.0, 1e-6),  # nothing changes: taken back
        ([20, 20, 20, 20, 26], 26, 20, 0.0, 1.1e-6),  # one of the five differs: kept
        ([26] * 5, 26, 20, 0.0, 1.21e-6),  # all of them do
        ([20] * 5, 20, 20, 0.2, 0.605e-6),  # a gap: halved
        ([20] * 5, 26, 20, 0.0, 0.605e-6),  # its own iteration is not one of the five
        ([26, 20, 20, 20, 20], 20, 20, 0.0, 0.6655e-6),  # the fifth before it is
        ([26, 26, 26, 26, 20], 26, 26, 0.0, 0.73205e-6),
        ([20] * 5, 20, 20, 0.0, 0.73205e-6),
    ]
    training, batch = [], Batch()
    for before, own, *_ in checks:
        training += [32] * 44 + before + [own]
    found = []
    for number, evaluations in enumerate(training):
        _, _, batch.larger, batch.gap, _ = checks[number // 50]
        if is_resumed:
            saved, batch.adaptation = batch.adaptation.state_dict(), tolerance(1e-6)
            batch.adaptation.load_state_dict(batch.block, saved)
        found.append(batch.iteration(number, evaluations))
    assert found[49::50] == pytest.approx([check[-1] for check in checks], rel=1e-12)
    larger, gaps = [check[2] for check in checks], [check[3] for check in checks]
    assert found == pytest.approx(otts_tolerances(training, larger, gaps), rel=1e-12)


def test_a_larger_tolerance_with_a_gap_is_taken_back() -> None:
    def accuracy(solver: Solver) -> tuple[float, int]:
        return (0.7, 8) if solver.tolerances[0] > 1e-3 else (0.9, 14)

    assert tolerance(1e-3).adapted(0.9, 8, accuracy).tol == 1e-3
