from __future__ import annotations

from made_up import FINE, GRID, RELU, TANH, made, steady

from nodebench.report.answer import answer
from nodebench.report.findings import Findings
from nodebench.store import Store
from nodebench.trial_folder import Result
from sweeps import tiny


def test_the_answer_names_what_is_no_better_than_chance(tmp_path):
    summary = {"chance": 0.5}
    sweep, store = tiny(tmp_path, grid={"solver.steps": [2, 4]}), Store(tmp_path / "runs")
    for trial, accuracy in zip(sweep.trials, (0.505, 0.52), strict=True):
        store.folder(trial.id).create(trial)
        made = Result("finished", "", 1, {**summary, "test_accuracy": accuracy}, [], 0, 1)
        store.folder(trial.id).write_result(made)
    assert "No better than chance (margin 0.01): `steps 2`." in answer(Findings(sweep, store))


def test_the_answer_tells_the_best_the_baseline_and_the_claims(tmp_path):
    claims = [
        {"says": "yes", "of": {**TANH, **FINE}, "above": RELU},
        {"says": "no", "of": {**RELU, **FINE}, "above": TANH},
    ]
    _, found = made(tmp_path, steady, claims=claims, baseline=RELU)
    text = answer(found)
    assert "The highest test accuracy is that of `tanh 8`, 70.10 ± " in text
    assert "next is `tanh 2`" in text
    assert "Of 2 compared with the baseline, 1 better and 1 without a clear difference." in text
    assert "Of the claims stated: 1 reproduced and 1 not reproduced." in text


def test_there_is_nothing_to_answer_before_anything_has_finished(tmp_path):
    sweep = tiny(tmp_path, grid=GRID, baseline=RELU)
    assert answer(Findings(sweep, Store(tmp_path / "runs"))) == ""
