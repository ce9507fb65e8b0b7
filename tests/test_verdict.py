"""Tests of verdict.py: made-up points, and linear fields whose answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nodebench.identity import Trial
from nodebench.verdict import ODE, RESNET, UNDECIDED, Verdict, slope, verdict
from sweeps import TINY, point, tiny

LIMIT = {"method": "rk4", "steps": 128, "nfe": 512.0}
OWN = {"method": "euler", "step_factor": 1.0, "nfe": 2.0}


def euler(steps: int) -> dict[str, Any]:
    return {"method": "euler", "steps": steps, "nfe": float(steps)}


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """A classifier trained by Euler's method with two steps."""
    return tiny(tmp_path).trials[0]


def judged(trial: Trial, *points: tuple[float | str, dict[str, Any]], **options: Any) -> Verdict:
    rows = [point(value, **fields) for value, fields in points]
    found = verdict(trial, rows, **{"margin": 0.01, **options})
    assert found is not None
    return found


def test_what_keeps_its_accuracy_at_the_limit_is_an_ode(trial: Trial) -> None:
    found = judged(trial, (0.90, OWN), (0.895, LIMIT))
    assert (found.word, found.own, found.limit) == (ODE, 0.9, 0.895)
    assert found.drop == pytest.approx(0.005)


def test_what_loses_more_than_the_margin_is_a_resnet(trial: Trial) -> None:
    points = (0.90, OWN), (0.88, LIMIT)
    assert judged(trial, *points).word == RESNET
    assert judged(trial, *points, margin=0.03).word == ODE


def test_no_finer_solver_may_lower_the_accuracy(trial: Trial) -> None:
    """The (S, n)-criterion is about every more powerful solver, not the limit alone."""
    found = judged(trial, (0.90, OWN), (0.5, euler(4)), (0.9, LIMIT))
    assert (found.word, found.drop) == (RESNET, pytest.approx(0.4))


def test_a_coarser_solver_may_be_worse(trial: Trial) -> None:
    coarser = {"method": "euler", "steps": 1, "nfe": 1.0}
    assert judged(trial, (0.90, OWN), (0.1, coarser), (0.9, LIMIT)).word == ODE


def test_a_method_of_lower_order_is_not_finer(tmp_path: Path) -> None:
    base = {**TINY, "solver": {"method": "midpoint", "steps": 2}}
    trial = tiny(tmp_path, base=base).trials[0]
    own = {"method": "midpoint", "step_factor": 1.0, "nfe": 4.0}
    found = judged(trial, (0.9, own), (0.3, euler(8)), (0.9, LIMIT))
    assert found.word == ODE


def test_more_accuracy_at_the_limit_is_no_drop(trial: Trial) -> None:
    found = judged(trial, (0.80, OWN), (0.9, LIMIT))
    assert (found.word, found.drop) == (ODE, pytest.approx(-0.1))


def test_the_finest_point_is_the_limit(trial: Trial) -> None:
    finer = {"method": "rk4", "steps": 200, "nfe": 800.0}
    coarser = {"method": "rk4", "steps": 16, "nfe": 64.0}
    loose = {"method": "dopri5", "tol": 1.0, "nfe": 14.0}
    points = (0.9, OWN), (0.9, LIMIT), (0.7, finer), (0.6, coarser), (0.5, loose)
    assert judged(trial, *points).limit == 0.7


def test_without_a_limit_nothing_is_said(trial: Trial) -> None:
    coarser = {"method": "rk4", "steps": 16, "nfe": 64.0}
    found = judged(trial, (0.9, OWN), (0.9, coarser))
    assert (found.word, found.reason) == (UNDECIDED, "the limit has not been evaluated")
    assert (found.own, found.limit) == (0.9, None)
    found = judged(trial, (0.9, OWN), ("diverged", LIMIT))
    assert (found.word, found.reason) == (UNDECIDED, "the limit: diverged")


def test_a_model_that_fails_under_its_own_solver_is_undecided(trial: Trial) -> None:
    found = judged(trial, ("diverged", OWN), (0.9, LIMIT))
    assert (found.word, found.reason) == (UNDECIDED, "its own solver: diverged")


def test_nothing_is_said_of_a_model_that_has_learned_nothing(trial: Trial) -> None:
    points = (0.105, OWN), (0.1, LIMIT)
    found = judged(trial, *points, chance=0.1)
    assert (found.word, found.reason) == (UNDECIDED, "no better than chance, 0.1")
    assert judged(trial, *points).word == ODE


def test_without_evaluations_there_is_no_verdict(trial: Trial) -> None:
    assert verdict(trial, [], 0.01) is None
    gradient = point(0.9, **euler(4), gradient="adjoint")
    assert verdict(trial, [gradient], 0.01) is None


def test_verdicts_rest_on_the_most_samples_and_learned_statistics(trial: Trial) -> None:
    found = judged(
        trial,
        (0.1, {**OWN, "test_size": 8}), (0.1, {**LIMIT, "test_size": 8}),
        (0.2, {**OWN, "batch_norm": "batch"}), (0.2, {**LIMIT, "batch_norm": "batch"}),
        (0.9, OWN), (0.8, LIMIT),
    )  # fmt: skip
    assert (found.own, found.limit) == (0.9, 0.8)


def test_errors_are_better_when_they_are_small(tmp_path: Path) -> None:
    spiral = {"data": "spiral", "model": "neuralode", "train": {"epochs": 1, "batch_size": 8}}
    base = {**spiral, "solver": {"method": "euler", "step_size": 0.5}}
    trial = tiny(tmp_path, base=base).trials[0]
    rows = [point(0.0, **fields) | {"error": e} for e, fields in ((0.1, OWN), (0.3, LIMIT))]
    found = verdict(trial, rows, 0.01)
    assert found is not None
    assert (found.word, found.drop) == (RESNET, pytest.approx(0.2))


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ({4: 0.5, 8: 0.895, 16: 0.9}, 8),
        ({4: 0.9, 8: 0.5, 16: 0.9}, 16),  # from which on it stays
        ({4: 0.9, 8: 0.9, 16: 0.9}, 2),
        ({4: 0.5, 8: 0.6, 16: 0.7}, None),
    ],
    ids=["some", "back", "all", "none"],
)
def test_the_fewest_steps_from_which_accuracy_stays_at_the_limit(
    trial: Trial, accuracies: dict[int, float], expected: int | None
) -> None:
    own = 0.9 if expected == 2 else 0.99
    points = [(value, euler(steps)) for steps, value in accuracies.items()]
    found = judged(trial, (own, OWN), (0.9, LIMIT), *points)
    assert found.sufficient_steps == expected


def test_the_order_is_the_slope_of_errors_from_the_training_step_size_down(trial: Trial) -> None:
    errors = {1: 5.0, 4: 0.1, 8: 0.05, 16: 0.025, 32: 1e-15}  # coarser; order one; rounding
    points = [(0.9, {**euler(n), "solver_error": e}) for n, e in errors.items()]
    found = judged(trial, (0.9, {**OWN, "solver_error": 0.2}), (0.9, LIMIT), *points)
    assert found.order == pytest.approx(1.0)


def test_a_slope_needs_two_places() -> None:
    assert slope([]) is None
    assert slope([(1.0, 2.0), (1.0, 3.0)]) is None
    assert slope([(0.0, 1.0), (2.0, 5.0), (1.0, 3.0)]) == pytest.approx(2.0)
