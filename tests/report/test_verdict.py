"""Tests of verdicts: made-up points, and linear fields whose answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nodebench.report.analysis.verdict import Verdict, VerdictWord, verdict
from nodebench.spec import Trial
from tests.support.tiny_sweeps import TINY, point, tiny

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
    assert (found.word, found.own, found.limit) == (VerdictWord.ODE, 0.9, 0.895)
    assert found.drop == pytest.approx(0.005)


def test_what_loses_more_than_the_margin_is_a_resnet(trial: Trial) -> None:
    points = (0.90, OWN), (0.88, LIMIT)
    assert judged(trial, *points).word == VerdictWord.RESNET
    assert judged(trial, *points, margin=0.03).word == VerdictWord.ODE


@pytest.mark.parametrize(
    ("samples", "lost", "gained", "finer", "word"),
    [
        (100, 2, 0, 1, VerdictWord.UNDECIDED),  # p = 0.25
        (250, 5, 0, 1, VerdictWord.RESNET),  # p = 0.03
        (250, 5, 0, 2, VerdictWord.UNDECIDED),  # the worse of two, p = 0.06
        (250, 8, 3, 1, VerdictWord.UNDECIDED),  # p = 0.11
        (10_000, 280, 80, 2, VerdictWord.RESNET),
        (10_000, 3280, 3080, 2, VerdictWord.RESNET),  # p = 0.006
        (10_000, 5180, 4980, 3, VerdictWord.UNDECIDED),  # p = 0.024, the worst of three
    ],
)
def test_a_loss_is_clear_if_it_is_more_than_equal_changes_explain(
    trial: Trial, samples: int, lost: int, gained: int, finer: int, word: VerdictWord
) -> None:
    """McNemar's exact test, one-sided."""
    limit = {**LIMIT, "samples": samples, "lost": lost, "gained": gained}
    others = [(0.90, euler(4 + i)) for i in range(finer - 1)]
    left = 0.90 - (lost - gained) / samples
    found = judged(trial, (0.90, {**OWN, "samples": samples}), (left, limit), *others)
    assert found.word == word
    if word == VerdictWord.UNDECIDED:
        net = f"a loss of {lost - gained} of {samples} test samples may be chance"
        assert found.reason == f"{net}: {lost} became wrong and {gained} right"


@pytest.mark.parametrize(
    ("own", "word"),
    [(1.0, VerdictWord.RESNET), (0.99, VerdictWord.RESNET), (0.9, VerdictWord.UNDECIDED)],
)
def test_older_rows_count_every_wrong_sample_as_gained(
    trial: Trial, own: float, word: VerdictWord
) -> None:
    """20 of 1,000 lost; with 0, 10, and 100 wrong ones, p = 1e-6, 0.0008 and 0.08."""
    point = {**LIMIT, "samples": 1000}
    found = judged(trial, (own, {**OWN, "samples": 1000}), (own - 0.02, point))
    assert found.word == word
    if word == VerdictWord.UNDECIDED:
        assert found.reason == "a loss of 20 of 1000 test samples may be chance"


def test_an_ode_is_rarely_called_a_resnet_however_many_samples_change(trial: Trial) -> None:
    """Of 1,000 samples, 50 to 200 change at random under one of three finer solvers each."""
    chance = np.random.default_rng(0)
    called = 0
    for changed in (50, 100, 200) * 100:
        lost = chance.binomial(changed, 0.5, size=3)
        points = [
            (0.9 - (n - (changed - n)) / 1000,
             {**where, "samples": 1000, "lost": int(n), "gained": int(changed - n)})
            for n, where in zip(lost, (LIMIT, euler(8), euler(16)), strict=True)
        ]  # fmt: skip
        found = judged(trial, (0.9, {**OWN, "samples": 1000}), *points)
        called += found.word == VerdictWord.RESNET
    assert called <= 0.05 * 300


def test_no_finer_solver_may_lower_the_accuracy(trial: Trial) -> None:
    """The (S, n)-criterion is about every more powerful solver, not the limit alone."""
    found = judged(trial, (0.90, OWN), (0.5, euler(4)), (0.9, LIMIT))
    assert (found.word, found.drop) == (VerdictWord.RESNET, pytest.approx(0.4))


def test_a_coarser_solver_may_be_worse(trial: Trial) -> None:
    coarser = {"method": "euler", "steps": 1, "nfe": 1.0}
    assert judged(trial, (0.90, OWN), (0.1, coarser), (0.9, LIMIT)).word == VerdictWord.ODE


def test_a_method_of_lower_order_is_not_finer(tmp_path: Path) -> None:
    base = {**TINY, "solver": {"method": "midpoint", "steps": 2}}
    trial = tiny(tmp_path, base=base).trials[0]
    own = {"method": "midpoint", "step_factor": 1.0, "nfe": 4.0}
    found = judged(trial, (0.9, own), (0.3, euler(8)), (0.9, LIMIT))
    assert found.word == VerdictWord.ODE


def test_what_errs_less_is_finer_whatever_its_order_and_work(tmp_path: Path) -> None:
    base = {**TINY, "solver": {"method": "midpoint", "steps": 2}}
    trial = tiny(tmp_path, base=base).trials[0]
    own = {"method": "midpoint", "step_factor": 1.0, "nfe": 4.0, "solver_error": 0.1}
    points = (0.9, own), (0.9, LIMIT)
    nearer, farther = ({**euler(64), "solver_error": error} for error in (0.01, 0.2))
    assert judged(trial, *points, (0.3, nearer)).word == VerdictWord.RESNET
    assert judged(trial, *points, (0.3, farther)).word == VerdictWord.ODE
    # A point of more work and order that errs more is no finer, and one of unknown error may be.
    tol = {"method": "dopri5", "tol": 1.0, "nfe": 14.0}
    assert judged(trial, *points, (0.3, {**tol, "solver_error": 0.2})).word == VerdictWord.ODE
    assert judged(trial, *points, (0.3, tol)).word == VerdictWord.RESNET


def test_more_accuracy_at_the_limit_is_no_drop(trial: Trial) -> None:
    found = judged(trial, (0.80, OWN), (0.9, LIMIT))
    assert (found.word, found.drop) == (VerdictWord.ODE, pytest.approx(-0.1))


def test_the_finest_point_is_the_limit(trial: Trial) -> None:
    finer = {"method": "rk4", "steps": 200, "nfe": 800.0}
    coarser = {"method": "rk4", "steps": 16, "nfe": 64.0}
    loose = {"method": "dopri5", "tol": 1.0, "nfe": 14.0}
    points = (0.9, OWN), (0.9, LIMIT), (0.7, finer), (0.6, coarser), (0.5, loose)
    assert judged(trial, *points).limit == 0.7


def test_without_a_limit_nothing_is_said(trial: Trial) -> None:
    coarser = {"method": "rk4", "steps": 16, "nfe": 64.0}
    found = judged(trial, (0.9, OWN), (0.9, coarser))
    assert (found.word, found.reason) == (VerdictWord.UNDECIDED, "the limit has not been evaluated")
    assert (found.own, found.limit) == (0.9, None)
    found = judged(trial, (0.9, OWN), ("diverged", LIMIT))
    assert (found.word, found.reason) == (VerdictWord.UNDECIDED, "at the limit: diverged")
    assert found.drop is None  # it is at least that under the other solvers


def test_a_model_that_fails_under_its_own_solver_is_undecided(trial: Trial) -> None:
    found = judged(trial, ("diverged", OWN), (0.9, LIMIT))
    reason = "under the training solver: diverged"
    assert (found.word, found.reason) == (VerdictWord.UNDECIDED, reason)


def test_nothing_is_said_of_a_model_that_has_learned_nothing(trial: Trial) -> None:
    points = (0.105, OWN), (0.1, LIMIT)
    found = judged(trial, *points, chance=0.1)
    assert (found.word, found.reason) == (VerdictWord.UNDECIDED, "no better than chance, 0.1")
    assert judged(trial, *points).word == VerdictWord.ODE
    own = {**OWN, "chance": 0.1}  # of the samples it was evaluated on, not of the whole test set
    assert judged(trial, (0.105, own), points[1], chance=0.05).word == VerdictWord.UNDECIDED


@pytest.mark.parametrize(
    ("samples", "accuracy", "word"),
    [
        (100, 0.58, VerdictWord.UNDECIDED),  # 58 or more of 100 coins: p = 0.067
        (100, 0.59, VerdictWord.ODE),  # p = 0.044
        (10_000, 0.512, VerdictWord.ODE),  # p = 0.008
        (10_000, 0.509, VerdictWord.UNDECIDED),  # p = 0.037, but within the margin
    ],
)
def test_guesses_may_be_right_as_often_on_few_test_samples(
    trial: Trial, samples: int, accuracy: float, word: VerdictWord
) -> None:
    found = judged(trial, (accuracy, {**OWN, "samples": samples}), (accuracy, LIMIT), chance=0.5)
    assert found.word == word
    if samples == 100 and word == VerdictWord.UNDECIDED:
        assert found.reason == "not clearly better than chance, 0.5, on 100 test samples"


def test_guesses_that_lose_their_accuracy_are_no_resnet(trial: Trial) -> None:
    own = {**OWN, "samples": 100}
    found = judged(trial, (0.58, own), (0.3, LIMIT), chance=0.5)
    assert (found.word, found.drop) == (VerdictWord.UNDECIDED, None)


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
    assert (found.word, found.drop) == (VerdictWord.RESNET, pytest.approx(0.2))


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ({2: 0.5, 4: 0.895, 8: 0.9}, 4),
        ({2: 0.9, 4: 0.5, 8: 0.9}, 8),  # from which on it stays
        ({2: 0.9, 4: 0.9, 8: 0.9}, 2),
        ({2: 0.5, 4: 0.6, 8: 0.7}, 16),
    ],
    ids=["some", "back", "all", "none"],
)
def test_the_fewest_steps_from_which_accuracy_stays_at_the_limit(
    tmp_path: Path, accuracies: dict[int, float], expected: int
) -> None:
    trial = tiny(tmp_path, base={**TINY, "solver": {"method": "euler", "steps": 16}}).trials[0]
    rows = [point(value, **euler(steps)) for steps, value in accuracies.items()]
    own = {"method": "euler", "step_factor": 1.0, "nfe": 16.0}
    rows += [point(0.9, trial.spec.solver, **own), point(0.9, **LIMIT)]
    found = verdict(trial, rows, 0.01)
    assert found is not None
    assert (found.word, found.sufficient_steps) == (VerdictWord.ODE, expected)


@pytest.mark.parametrize(("own", "word"), [(0.9, VerdictWord.RESNET), (0.5, VerdictWord.UNDECIDED)])
def test_no_number_of_steps_suffices_for_what_is_no_ode_or_has_learned_nothing(
    trial: Trial, own: float, word: VerdictWord
) -> None:
    found = judged(trial, (own, OWN), (0.5, euler(4)), (0.5, LIMIT), chance=0.5)
    assert (found.word, found.limit, found.sufficient_steps) == (word, 0.5, None)


def test_a_drop_of_exactly_the_margin_is_within_it(trial: Trial) -> None:
    assert 0.95 - 0.94 > 0.01
    found = judged(trial, (0.95, OWN), (0.94, LIMIT))
    assert (found.word, found.sufficient_steps) == (VerdictWord.ODE, 2)


def test_the_order_is_that_observed_under_its_own_solver(trial: Trial) -> None:
    rows = [point(0.9, **OWN) | {"order": 0.97}, point(0.9, **LIMIT)]
    found = verdict(trial, rows, 0.01)
    assert found is not None and found.order == 0.97


@pytest.mark.parametrize(
    "solver",
    [{"method": "dopri5", "tol": 1e-2}, {"method": "dopri8", "tol": 1e-2},
     {"method": "scipy_solver", "tol": 1e-2}],
    ids=lambda solver: solver["method"],
)  # fmt: skip
def test_the_limit_is_finer_than_any_tolerance(tmp_path: Path, solver: dict[str, Any]) -> None:
    """Though its order is lower: rk4 with 128 steps beside dopri5."""
    trial = tiny(tmp_path, base={**TINY, "solver": solver, "gradient": "adjoint"}).trials[0]
    own = {"method": solver["method"], "tol_factor": 1.0, "nfe": 20.0}
    trained = trial.spec.solver
    rows = [point(0.99, trained, **own), point(0.5, trained, **LIMIT)]
    found = verdict(trial, rows, 0.01)
    assert found is not None
    assert (found.word, found.drop) == (VerdictWord.RESNET, pytest.approx(0.49))


def test_of_what_was_trained_at_the_limit_nothing_is_said(tmp_path: Path) -> None:
    base = {**TINY, "solver": {"method": "rk4", "steps": 128}}
    trial = tiny(tmp_path, base=base).trials[0]
    own = {"method": "rk4", "step_factor": 1.0, "nfe": 512.0}
    rows = [point(0.9, trial.spec.solver, **own), point(0.9, **LIMIT)]
    found = verdict(trial, rows, 0.01)
    assert found is not None
    assert (found.word, found.reason) == (VerdictWord.UNDECIDED, "no finer solver was evaluated")
    finer = {"method": "rk4", "steps": 256, "nfe": 1024.0}
    found = verdict(trial, [*rows, point(0.9, **finer)], 0.01)
    assert found is not None and found.word == VerdictWord.ODE


def test_the_limit_by_another_name_is_not_finer_than_itself(tmp_path: Path) -> None:
    base = {**TINY, "solver": {"method": "rk4", "step_size": 1 / 128}}
    trial = tiny(tmp_path, base=base).trials[0]
    own = {"method": "rk4", "step_factor": 1.0, "nfe": 512.0}
    found = verdict(trial, [point(0.9, trial.spec.solver, **own), point(0.9, **LIMIT)], 0.01)
    assert found is not None
    assert (found.word, found.reason) == (VerdictWord.UNDECIDED, "no finer solver was evaluated")


def test_a_finer_solver_that_fails_leaves_it_undecided(trial: Trial) -> None:
    found = judged(trial, (0.9, OWN), ("diverged", euler(4)), (0.9, LIMIT))
    assert (found.word, found.reason) == (VerdictWord.UNDECIDED, "under a finer solver: diverged")
    assert found.drop is None
    coarser = judged(trial, (0.9, OWN), ("diverged", euler(1)), (0.9, LIMIT))
    assert coarser.word == VerdictWord.ODE
    assert (
        judged(trial, (0.9, OWN), ("diverged", euler(4)), (0.5, LIMIT)).word == VerdictWord.RESNET
    )


def test_a_network_without_ode_blocks_has_no_verdict(trial: Trial) -> None:
    rows = [point(0.9, **{**OWN, "nfe": 0}), point(0.9, **{**LIMIT, "nfe": 0})]
    assert verdict(trial, rows, 0.01) is None
