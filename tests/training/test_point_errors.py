"""The errors of evaluated points: measured again, or not at all, beside accuracies that stay."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from nodebench.errors import DeadlineExceeded
from nodebench.planning import entries
from nodebench.report.analysis.verdict import judge
from nodebench.spec.training import Limits
from nodebench.store import Store
from nodebench.store.rows import ERRORS_RULE
from nodebench.training.trial import run_trial
from tests.support.tiny_sweeps import options, tiny

BLOCK = {"methods": ["euler"], "steps": [2, 4]}


@pytest.mark.usefixtures("coarse_reference")
def test_errors_by_an_older_rule_are_measured_again_and_accuracies_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = [BLOCK, {**BLOCK, "gradients": ["backprop"]}]
    sweep, store = tiny(tmp_path, evaluate=blocks), Store(tmp_path / "runs")
    trial, folder = sweep.trials[0], store.folder(sweep.trials[0].id)
    run_trial(trial, store, options(sweep, tmp_path))
    rows = folder.evaluations()
    assert {row["errors_rule"] for row in rows} == {ERRORS_RULE}
    # As an older release wrote them, but for an accuracy by which they are known.
    old = [row | {"solver_error": 7.0, "order": 7.0, "gradient_error": 7.0} for row in rows]
    old = [row | {"accuracy": 0.123} if "accuracy" in row else row for row in old]
    folder.write_evaluations([{k: v for k, v in row.items() if k != "errors_rule"} for row in old])
    assert not any({"solver_error", "order", "gradient_error"} & {*r} for r in folder.evaluations())
    assert entries(sweep, store, options(sweep, tmp_path))[0].missing
    judged = judge(trial, sweep, store)
    assert judged is not None and (judged.own, judged.order) == (0.123, None)

    def untested(*_args: object, **_how: object) -> None:
        raise AssertionError("the accuracy is known")

    monkeypatch.setattr("nodebench.training.tasks.classification.Classification.evaluate", untested)
    run_trial(trial, store, options(sweep, tmp_path))
    assert not entries(sweep, store, options(sweep, tmp_path))[0].missing
    again = folder.evaluations()
    assert [row["point"] for row in again] == [row["point"] for row in rows]
    for before, after in zip(rows, again, strict=True):
        for name in ("solver_error", "order", "gradient_error", "nfe", "errors_rule"):
            assert after.get(name) == before.get(name)
        assert after.get("accuracy") == (0.123 if "accuracy" in before else None)


@pytest.mark.usefixtures("coarse_reference")
@pytest.mark.parametrize("part", ["ReferenceSolves.under", "in_double"])
@pytest.mark.parametrize(
    ("error", "more"),
    [
        (DeadlineExceeded("time was up"), {"limits": Limits(minutes=9)}),
        (torch.OutOfMemoryError("CUDA out of memory"), {"retry_failed": True}),
    ],
    ids=["deadline", "memory"],
)
def test_errors_that_cannot_be_measured_leave_the_accuracy_and_are_asked_for_again_later(
    error: Exception, more: dict[str, Any], part: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    sweep, store = tiny(tmp_path, evaluate=BLOCK), Store(tmp_path / "runs")
    now = dataclasses.replace(options(sweep, tmp_path), limits=Limits(minutes=5))
    folder = store.folder(sweep.trials[0].id)

    def failing(*_arguments: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(f"nodebench.training.numerical_error.solves.{part}", failing)
        run_trial(sweep.trials[0], store, now)
    before = folder.evaluations()
    assert all(row["outcome"] == "finished" and "accuracy" in row for row in before)
    assert not any("solver_error" in row for row in before)
    assert not entries(sweep, store, now)[0].missing
    later = dataclasses.replace(now, **more)
    assert entries(sweep, store, later)[0].missing
    monkeypatch.setattr("nodebench.training.tasks.classification.Classification.evaluate", failing)
    run_trial(sweep.trials[0], store, later)
    assert not entries(sweep, store, later)[0].missing
    after = folder.evaluations()
    assert [row["accuracy"] for row in after] == [row["accuracy"] for row in before]
    assert not any({"limit", "errors_outcome"} & {*row} for row in after)
    assert any("solver_error" in row for row in after)
