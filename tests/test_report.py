import math
import re
from dataclasses import replace

import pandas as pd
import pytest

from nodebench.report import tables
from nodebench.report.page import write_report
from nodebench.report.statistics import count_and_spread, mean_and_spread
from nodebench.store import Result, Store
from nodebench.trial import run_trial
from sweeps import TINY, options, tiny

ROW = {"nfe_forward": 2.0, "nfe_backward": 0.0, "parameters": 71, "epoch_s": 0.5}
HERE = {"hardware": "abacus", "threads": 1, "torch": "2", "device": "cpu"}


def result(accuracy, **changes):
    summary = {**ROW, "test_accuracy": accuracy, "best_test_accuracy": accuracy + 0.01}
    tags = {"commit": "abc", "dirty": "no"}
    return replace(Result("finished", "", 3, summary, [HERE], 1.0, 2.0, tags=tags), **changes)


@pytest.fixture
def made_up(tmp_path):
    """Two cells of three seeds with known accuracies; one trial diverged, one is missing."""
    sweep = tiny(tmp_path, grid={"solver.steps": [2, 4]}, seeds=[0, 1, 2])
    store = Store(tmp_path / "runs")
    results = [
        result(0.8),
        result(0.9),
        result(1.0),
        result(0.5),
        result(0.0, outcome="diverged", reason="loss is nan", epoch=1, summary={"parameters": 71}),
    ]
    for trial, made in zip(sweep.trials, results, strict=False):
        store.folder(trial.id).write_result(made)
        curve = [{"epoch": e, "test_accuracy": e / 10, "train_loss": 1 / e, **ROW} for e in (1, 2)]
        store.folder(trial.id).write_history([{**row, "iteration": 1, "time": 0} for row in curve])
    return sweep, store


def test_mean_and_sample_standard_deviation():
    assert mean_and_spread(pd.Series([80.0, 90.0, 100.0]), 2) == "90.00 ± 10.00"
    assert mean_and_spread(pd.Series([80.0]), 1) == "80.0"
    assert mean_and_spread(pd.Series([], dtype=float), 1) == "–"


def test_counts_that_agree_are_written_plainly():
    assert count_and_spread(pd.Series([8.0, 8.0])) == "8"
    assert count_and_spread(pd.Series([7.0, 9.0])) == "8.0 ± 1.4"
    assert count_and_spread(pd.Series([math.nan])) == "–"


def test_the_summary_averages_what_finished_and_shows_what_did_not(made_up):
    sweep, store = made_up
    table = tables.summary(sweep, tables.results(sweep, store))
    assert list(table["solver.steps"]) == ["2", "4"]
    assert list(table["test accuracy %"]) == ["90.00 ± 10.00", "50.00"]
    assert list(table["n"]) == ["3", "1 of 3"]
    assert list(table["best epoch % †"]) == ["91.00 ± 10.00", "51.00"]
    assert list(table["parameters"]) == ["71", "71"]
    assert table["outcomes"][0] == "finished"
    assert table["outcomes"][1] == "1 finished, 1 DNF (diverged, epoch 2), 1 missing"


def test_only_columns_that_vary_are_shown(made_up):
    sweep, store = made_up
    columns = list(tables.summary(sweep, tables.results(sweep, store)))
    assert columns[0] == "solver.steps"
    assert not any(column.startswith(("data.", "train.", "model.")) for column in columns)


def test_the_page_has_table_figures_failures_and_provenance(made_up, tmp_path):
    sweep, store = made_up
    page = write_report(sweep, store, tmp_path / "report")
    text = page.read_text()
    assert "**4 of 6 trials finished; 1 diverged, 1 missing.**" in text
    assert "DNF (diverged, epoch 2)" in text
    assert "loss is nan" in text
    for fact in ("hardware: abacus", "commit: abc", "torch: 2", "threads per trial: 1"):
        assert fact in text
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (page.parent / link).exists(), link
    frame = pd.read_csv(page.parent / "results.csv")
    assert list(frame["id"]) == [trial.id for trial in sweep.trials]
    assert (page.parent / "sweep.yaml").read_text() == sweep.text


def test_the_same_data_gives_the_same_bytes(made_up, tmp_path):
    sweep, store = made_up
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        write_report(sweep, store, folder)
    files = sorted(p.relative_to(folders[0]) for p in folders[0].rglob("*") if p.is_file())
    assert any(file.suffix == ".svg" for file in files)
    for file in files:
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes(), file


def test_a_sweep_without_results_still_has_a_page(tmp_path):
    sweep = tiny(tmp_path)
    text = write_report(sweep, Store(tmp_path / "runs"), tmp_path / "report").read_text()
    assert "0 of 1 trials finished" in text


def test_trained_weights_under_other_solvers_are_a_table(tmp_path):
    sweep = tiny(tmp_path, seeds=[0, 1], evaluate={"methods": ["euler", "rk4"], "nfe": [4, 6, 8]})
    store = Store(tmp_path / "runs")
    for trial in sweep.trials:
        run_trial(trial, store, options(sweep, tmp_path))
    frame = tables.evaluations(sweep, store)
    table = tables.robustness(sweep, frame)
    assert list(table.columns) == ["test.method", "NFE 4", "NFE 6", "NFE 8"]
    assert list(table["test.method"]) == ["euler", "rk4"]
    # 6 evaluations do not divide by the four stages of rk4.
    assert table["NFE 6"][1] == "–"
    of_euler = frame[(frame["test.method"] == "euler") & (frame["test.steps"] == 4)]
    percent = of_euler["accuracy"] * 100
    assert table["NFE 4"][0] == f"{percent.mean():.2f} ± {percent.std(ddof=1):.2f}"


def test_results_are_tidy(made_up):
    sweep, store = made_up
    frame = tables.results(sweep, store)
    assert list(frame["seed"]) == [0, 1, 2] * 2
    assert frame["test_accuracy"].isna().sum() == 2
    epochs = tables.epochs(sweep, store)
    assert len(epochs) == 10
    assert math.isclose(epochs["train_loss"].max(), 1.0)
    assert TINY["model"]["name"] == frame["model.name"].unique().item()
