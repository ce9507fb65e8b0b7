from __future__ import annotations

import pandas as pd

from nodebench.report.analysis.findings import Findings
from nodebench.report.analysis.published import PublishedNumber, compared_number
from nodebench.report.summary import opening_paragraph
from nodebench.store import Result, Store
from tests.support.fake_results import FINE, GRID, RELU, TANH, made, steady
from tests.support.tiny_sweeps import tiny


def test_the_answer_names_what_is_no_better_than_chance(tmp_path):
    summary = {"chance": 0.5}
    sweep, store = tiny(tmp_path, grid={"solver.steps": [2, 4]}), Store(tmp_path / "runs")
    for trial, accuracy in zip(sweep.trials, (0.505, 0.52), strict=True):
        store.folder(trial.id).create(trial)
        made = Result("finished", "", 1, {**summary, "test_accuracy": accuracy}, [], 0, 1)
        store.folder(trial.id).write_result(made)
    assert "No better than chance (margin 0.01): `steps 2`." in opening_paragraph(
        Findings(sweep, store)
    )


def test_the_answer_tells_the_best_the_baseline_and_the_claims(tmp_path):
    claims = [
        {"says": "yes", "source": "S0", "of": {**TANH, **FINE}, "above": RELU},
        {"says": "no", "source": "S0", "of": {**RELU, **FINE}, "above": TANH},
        {"says": "we think so", "of": {**TANH, **FINE}, "above": RELU},
    ]
    _, found = made(tmp_path, steady, claims=claims, baseline=RELU)
    text = opening_paragraph(found)
    assert "The highest test accuracy is that of `tanh 8`, 70.10 ± " in text
    assert "next is `tanh 2`" in text
    assert "Of 2 compared with the baseline, 1 better and 1 without a clear difference." in text
    assert "Of the claims stated: 1 reproduced and 1 not reproduced." in text
    assert "Of our expectations: 1 met." in text


def test_the_answer_counts_what_matches_differs_and_is_too_uncertain(tmp_path):
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
    assert (
        "Of published numbers that compare (4): 1 matching, 2 differing and 1 too uncertain to say."
        in opening_paragraph(found)
    )


def test_there_is_nothing_to_answer_before_anything_has_finished(tmp_path):
    sweep = tiny(tmp_path, grid=GRID, baseline=RELU)
    assert opening_paragraph(Findings(sweep, Store(tmp_path / "runs"))) == ""
