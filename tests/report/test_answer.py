from __future__ import annotations

import math

import pandas as pd
import pytest

from nodebench.report.analysis.findings import Findings
from nodebench.report.analysis.published import PublishedNumber, compared_number
from nodebench.report.analysis.verdict import VerdictWord
from nodebench.report.answer import _lead, _Ranked, answer, listed
from nodebench.store import Result, Store
from tests.support.fake_results import FINE, GRID, RELU, TANH, made, steady
from tests.support.tiny_sweeps import point, tiny


def test_answer_names_configurations_no_better_than_chance(tmp_path):
    summary = {"chance": 0.5}
    sweep, store = tiny(tmp_path, grid={"solver.steps": [2, 4]}), Store(tmp_path / "runs")
    for trial, accuracy in zip(sweep.trials, (0.505, 0.52), strict=True):
        store.folder(trial.id).create(trial)
        made = Result("finished", "", 1, {**summary, "test_accuracy": accuracy}, [], 0, 1)
        store.folder(trial.id).write_result(made)
    assert "**No better than chance:** `steps 2` (margin 1 percentage point)." in listed(
        answer(Findings(sweep, store))
    )


def test_the_answer_tells_the_best_the_baseline_and_the_claims(tmp_path):
    claims = [
        {"says": "yes", "source": "S0", "of": {**TANH, **FINE}, "above": RELU},
        {"says": "no", "source": "S0", "of": {**RELU, **FINE}, "above": TANH},
        {"says": "we think so", "of": {**TANH, **FINE}, "above": RELU},
    ]
    _, found = made(tmp_path, steady, claims=claims, baseline=RELU)
    text = listed(answer(found))
    assert (
        "**Best:** `tanh steps 8`, 70.10 ± 24.85 % test accuracy (n = 3). It is not clearly" in text
    )
    assert (
        "ahead of the second best, `tanh steps 2`, 60.33 ± 25.13 % "
        "(paired t-test, p = 0.075, not corrected)." in text
    )
    assert "1 better and 1 without a clear difference (of 2 configurations)." in text
    assert "**[Claims](#claims):** 1 reproduced and 1 not reproduced." in text
    assert "**[Expectations](#expectations):** 1 met." in text
    assert "**Cost:** 12 trials, 12 seconds of training and tests. None failed." in text


def test_answer_says_that_the_best_is_no_ode(tmp_path):
    _, found = made(tmp_path, steady)
    found.judged = pd.DataFrame({"cell": ["tanh steps 8"] * 3, "verdict": [VerdictWord.RESNET] * 3})
    assert "test accuracy (n = 3), but it is not an ODE. It is not clearly ahead" in listed(
        answer(found)
    )
    found.judged.loc[0, "verdict"] = VerdictWord.ODE
    assert "not an ODE" not in listed(answer(found))


def test_configurations_that_are_as_good_in_every_seed_are_no_second_best(tmp_path):
    def tied(activation: str, steps: int, seed: int) -> float:
        return 0.9 + seed / 100 if activation == "tanh" or steps == 8 else 0.5

    _, found = made(tmp_path, tied)
    text = listed(answer(found))
    assert "**Best:** `relu steps 8`, 91.00 ± 2.48 % test accuracy (n = 3). `tanh steps 2`" in text
    assert "`tanh steps 2` and `tanh steps 8` are as good in every seed." in text
    assert "Second best" not in text


def test_answer_counts_published_readings(tmp_path):
    _, found = made(tmp_path, steady)
    ours = pd.Series([0.849, 0.85, 0.851])
    numbers = [0.849, 0.95, 0.96, 0.852]
    margins = [0.01, 0.01, 0.01, 1e-6]
    found.published = [
        compared_number(
            "a", PublishedNumber(cell={}, value=value, n=5, margin=margin, source="S0"), ours
        )
        for value, margin in zip(numbers, margins, strict=True)
    ]
    found.published.append(
        compared_number("a", PublishedNumber(cell={}, value=0.9, source="S0"), ours[:1])
    )
    counts = "1 matching, 2 differing and 1 too uncertain to say."
    assert f"of 4 comparable numbers, {counts}" in listed(answer(found))


def test_the_best_says_how_many_of_its_seeds_finished_and_who_is_ahead_on_common_ones(tmp_path):
    accuracies = {  # the best has two lucky seeds that the second lacks
        ("tanh", 8): (0.80, 0.81, 0.79, 0.99, 0.99),
        ("relu", 8): (0.85, 0.865, 0.838, "diverged", None),
    }
    _, found = made(tmp_path, lambda a, s, seed: accuracies.get((a, s), (0.1,) * 5)[seed], seeds=5)
    text = listed(answer(found))
    assert (
        "`tanh steps 8`, 87.60 [74.65, 100] % test accuracy (n = 5). Second best: `relu steps 8`, "
        in text
    )
    assert (
        "85.10 ± 3.36 % (n = 3 of 5), which is ahead on the 3 seeds that finished in both." in text
    )


@pytest.mark.parametrize(
    ("best", "second", "words"),
    [
        ((0.1, 0.2, 0.31), (0.5, 0.6, 0.7), "It is clearly ahead of the second best"),
        ((0.1, 0.2, 0.0), (0.08, 0.15, math.nan), "is ahead on the 2 seeds that finished in both"),
    ],
)
def test_lower_error_is_ahead(best, second, words, tmp_path):
    solver = {"method": "rk4", "step_size": 0.5}
    sweep = tiny(tmp_path, base={"data": "spiral", "model": "neuralode", "solver": solver})
    best, second = (_Ranked("a", pd.Series(values), 3) for values in (best, second))
    assert words in _lead(sweep, best, second)


def test_there_is_nothing_to_answer_before_anything_has_finished(tmp_path):
    sweep = tiny(tmp_path, grid=GRID, baseline=RELU)
    assert listed(answer(Findings(sweep, Store(tmp_path / "runs")))) == ""


def test_the_cost_is_the_sum_of_what_each_training_took(tmp_path):
    sweep = tiny(tmp_path, grid={"train.epochs": [10, 20, 40]})
    store = Store(tmp_path / "runs")
    for trial, seconds in zip(sweep.trials, (10.0, 10.0, 20.0), strict=True):
        summary = {"test_accuracy": 0.9, "epoch_s": 1.0}
        epochs = trial.spec.train.epochs
        result = Result("finished", "", epochs, summary, [], 0, 1, trained_s=seconds)
        store.folder(trial.id).create(trial)
        store.folder(trial.id).write_result(result)
    found = listed(answer(Findings(sweep, store)))
    assert "**Cost:** 3 trials, 40 seconds of training and tests. None failed." in found


def test_seeds_of_a_pack_share_its_seconds(tmp_path):
    sweep, store = tiny(tmp_path, seeds=[0, 1, 2]), Store(tmp_path / "runs")
    for trial in sweep.trials:  # each says what all three took
        store.folder(trial.id).create(trial)
        summary, packed = {"test_accuracy": 0.9, "epoch_s": 30.0}, [{"packed": 3}]
        result = Result("finished", "", 2, summary, packed, 0, 1, trained_s=60.0)
        store.folder(trial.id).write_result(result)
    assert "**Cost:** 3 trials, 60 seconds of training and tests. None failed." in listed(
        answer(Findings(sweep, store))
    )


def test_cost_includes_unfinished_trials_and_evaluation(tmp_path):
    sweep = tiny(tmp_path, seeds=[0, 1], evaluate={"methods": ["euler"], "steps": [4]})
    store = Store(tmp_path / "runs")
    summary = {"test_accuracy": 0.9, "epoch_s": 1.0}
    ends = (
        Result("finished", "", 3, summary, [], 0, 9, trained_s=8.0),
        Result("diverged", "loss is nan", 0, {}, [], 0, 9, trained_s=5.0),
    )
    for trial, end in zip(sweep.trials, ends, strict=True):
        store.folder(trial.id).create(trial)
        store.folder(trial.id).write_result(end)
    row = {**point(0.9, method="euler", steps=4), "measuring_s": 30.0}
    store.folder(sweep.trials[0].id).write_evaluations([row])
    assert (
        "**Cost:** 2 trials, 13 seconds of training and tests, 30 seconds of evaluation. "
        "This includes 1 trial that did [not finish](#not-finished)."
    ) in listed(answer(Findings(sweep, store)))


def test_best_of_guessing_configurations_is_no_better_than_chance(tmp_path):
    sweep, store = tiny(tmp_path, grid={"solver.steps": [2, 4]}), Store(tmp_path / "runs")
    for trial in sweep.trials:
        store.folder(trial.id).create(trial)
        summary = {"chance": 0.5, "test_accuracy": 0.5}
        store.folder(trial.id).write_result(Result("finished", "", 1, summary, [], 0, 1))
    told = "**Best:** `steps 2`, 50.00 % test accuracy (n = 1), no better than chance."
    assert told in listed(answer(Findings(sweep, store)))
