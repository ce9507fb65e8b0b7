"""The columns of a report's main table."""

import pandas as pd
import pytest

from nodebench.report import tables
from nodebench.report.analysis import frames
from nodebench.report.analysis.verdict import VerdictWord
from nodebench.report.result_tables import WIDEST, _fitted, _is_ode_text, result_tables
from nodebench.store import Store
from nodebench.training.trial import run_trial
from tests.support.fake_results import partly_failed
from tests.support.tiny_sweeps import TINY, options, tiny

YES, NO, UNDECIDED = VerdictWord.ODE, VerdictWord.RESNET, VerdictWord.UNDECIDED


@pytest.mark.parametrize(
    ("verdicts", "text"),
    [
        ([YES, YES], "yes"),
        ([NO], "no"),
        ([UNDECIDED, UNDECIDED], "undecided"),
        ([YES, YES, NO], "2 of 3"),
        ([YES, YES, UNDECIDED], "2 of 3, 1 undecided"),
        ([NO, UNDECIDED], "0 of 2, 1 undecided"),
    ],
)
def test_undecided_networks_are_counted_apart_from_those_that_are_no_odes(verdicts, text):
    assert _is_ode_text(pd.Series([word.value for word in verdicts])) == text


@pytest.fixture
def made_up(tmp_path):
    return partly_failed(tmp_path)


def unjudged_tables(sweep, store):
    """The tables of results of a sweep without evaluations and timings."""
    return result_tables(sweep, frames.result_frame(sweep, store), pd.DataFrame(), pd.DataFrame())


def test_the_summary_averages_what_finished_and_shows_what_did_not(made_up):
    sweep, store = made_up
    shown = unjudged_tables(sweep, store)
    assert list(shown.main["steps"]) == ["2", "4"]
    assert list(shown.main["accuracy %"]) == ["90.00 [65.16, 100]", "50.00"]
    assert list(shown.main["n"]) == ["3", "1 of 3"]
    assert shown.constant == {"NFE": "2", "parameters": "71"}
    assert list(shown.details["best epoch accuracy % †"]) == ["91.00 [66.16, 100]", "51.00"]
    assert shown.details["outcomes"][0] == "finished"
    assert shown.details["outcomes"][1] == "1 finished, 1 DNF (diverged, epoch 2), 1 missing"


def test_only_columns_that_vary_are_shown(made_up):
    sweep, store = made_up
    assert list(unjudged_tables(sweep, store).main) == ["steps", "accuracy %", "n", "s/epoch ‡"]


@pytest.mark.parametrize(
    ("room", "seconds", "left"),
    [
        (75, "s/epoch ‡", ["s/epoch ‡", "NFE", "parameters"]),
        (60, "s/epoch ‡", ["s/epoch ‡", "NFE"]),
        (45, "s/epoch ‡", ["NFE"]),
        (45, "s/epoch on A ‡", ["NFE"]),
        (45, "s/epoch", ["s/epoch"]),
        (30, "s/epoch ‡", []),
    ],
)
def test_a_wide_table_leaves_out_seconds_that_do_not_compare_before_evaluations(
    room, seconds, left
):
    results = {"accuracy %": "93.50 ± 2.50", "n": "3", seconds: "0.57 ± 0.01", "NFE": "19.9 ± 0.4"}
    label = pd.DataFrame({"configuration": ["x" * (WIDEST - room)]})
    table = _fitted(label, pd.DataFrame([{**results, "parameters": "3,207"}]))
    assert list(table) == ["configuration", "accuracy %", "n", *left]


@pytest.mark.parametrize(
    ("value", "text"),
    [(10.0, "10"), (1e30, "1e+30"), (None, "–"), (("crop", "flip"), "crop, flip"), ((), "–")],
)
def test_a_setting_is_shown_plainly(value, text):
    assert tables.cell_text(value) == text


def test_validation_is_a_column_and_chooses_the_best_epoch(tmp_path):
    base = {**TINY, "data": {**TINY["data"], "val_size": 20}, "train": {"epochs": 6}}
    sweep, store = tiny(tmp_path, base=base), Store(tmp_path / "runs")
    trial = sweep.trials[0]
    result = run_trial(trial, store, options(sweep, tmp_path))
    history = store.folder(trial.id).history()
    best = max(history, key=lambda row: row["val_accuracy"])
    assert result.summary["best_epoch"] == best["epoch"]
    assert result.summary["best_test_accuracy"] == best["test_accuracy"]
    table = unjudged_tables(sweep, store).details
    last = history[-1]["val_accuracy"]
    assert list(table["validation accuracy %"]) == [f"{100 * last:.2f}"]


def test_an_adapted_solver_shows_where_it_ended_and_what_it_took(tmp_path):
    solvers = [{"method": "euler", "adapt": {"every": 2, "max_steps": 5}},
               {"method": "dopri5", "adapt": {"every": 2}}]  # fmt: skip
    sweep, store = tiny(tmp_path, grid={"solver": solvers}), Store(tmp_path / "runs")
    for trial in sweep.trials:
        run_trial(trial, store, options(sweep, tmp_path))
    table = unjudged_tables(sweep, store).details
    euler, dopri5 = (store.folder(trial.id) for trial in sweep.trials)
    size = euler.result().summary["step_size"]
    at_limit = ", 1 at the limit" if size < 1 / 4 else ""
    assert table["final step size"][0] == f"{size:.4f}{at_limit}"
    assert table["final tol"][1] == f"{dopri5.result().summary['tol']:.2g}"
    assert (table["final step size"][1], table["final tol"][0]) == ("–", "–")
    mean = sum(row["nfe_forward"] for row in dopri5.history()) / 3
    assert table["NFE over training"][1] == f"{mean:.1f}"
