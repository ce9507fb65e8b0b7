"""Tests of the frames' columns: one name for a trial here, and the published one in files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from nodebench import api
from nodebench.report.analysis.columns import TRIAL, read_results
from nodebench.report.analysis.findings import Findings
from nodebench.report.page import write_report_folder
from nodebench.store import Result, Store
from tests.support.tiny_sweeps import point, tiny

SOLVES = {"methods": ["euler"], "steps": [4]}
GRADIENTS = {"methods": ["euler"], "steps": [2], "gradients": ["backprop"]}
BATCHES = {"methods": ["euler"], "steps": [4], "batch_sizes": [8]}
OWN = {"method": "euler", "step_factor": 1.0, "nfe": 2.0}
FILES = {
    "results": "id", "evaluations": "trial", "batches": "trial", "gradients": "trial",
    "timings": "trial", "machines": "trial",
}  # fmt: skip


@pytest.fixture
def known(tmp_path: Path):
    """A sweep of which everything that a frame can hold is in the store."""
    sweep, store = tiny(tmp_path, evaluate=[SOLVES, GRADIENTS, BATCHES]), Store(tmp_path / "runs")
    timing = {"hardware": "abacus", "device": "cpu", "threads": 1, "torch": "2", "time": 1.0,
              "load_before": 0.1, "timed_epoch_s": 2.0, "step_s": 0.1, "step_s_least": 0.1,
              "step_s_most": 0.1, "rounds": 3, "steps": 8}  # fmt: skip
    for trial in sweep.trials:
        folder = store.folder(trial.id)
        folder.create(trial)
        gradient = point(0.9, method="euler", steps=2, gradient="backprop", at="end")
        batches = point(0.9, method="euler", steps=4, batch_size=8)
        folder.write_evaluations([point(0.9, **OWN), gradient, batches])
        folder.write_history([{"epoch": 1, "time": 1.0, "test_accuracy": 0.9}])
        folder.add_timing(timing)
        ends = [Result("finished", "", 1, {"test_accuracy": x}, [], 0, 1) for x in (0.9, 0.8)]
        folder.write_result(ends[0])
        folder.write_elsewhere(ends[1:])
    return sweep, store


def test_a_trial_has_one_name_in_every_frame(known):
    found = Findings(*known)
    frames = {**found.tables, "epochs": found.epochs, "verdicts": found.judged}
    for name, frame in frames.items():
        assert not frame.empty, name
        assert TRIAL in frame, name
        assert not {"id", "trial"} & set(frame), name


def test_files_keep_the_names_that_were_published(known, tmp_path):
    sweep, store = known
    write_report_folder(sweep, store, tmp_path / "report")
    for name, column in FILES.items():
        table = pd.read_csv(tmp_path / "report" / f"{name}.csv")
        assert table.columns[0] == column, name
        assert TRIAL not in table, name
    again = read_results(tmp_path / "report" / "results.csv")
    assert list(again[TRIAL]) == [trial.id for trial in sweep.trials]


def test_committed_tables_have_the_same_names():
    tables = sorted((Path(__file__).parents[2] / "reports").glob("*/*.csv"))
    assert tables
    for table in tables:
        assert pd.read_csv(table, nrows=0).columns[0] == FILES[table.stem], table


def test_python_gives_the_names_of_the_files(known):
    sweep, store = known
    assert api.results(sweep, store).columns[0] == "id"
    assert api.epochs(sweep, store).columns[0] == "trial"


def test_whole_numbers_are_written_as_such_where_some_are_missing(tmp_path):
    grid = [{"solver": [{"method": "dopri5", "tol": 1.0}]}, {"solver.steps": [2, 4]}]
    sweep, store = tiny(tmp_path, grid=grid, evaluate=SOLVES), Store(tmp_path / "runs")
    for trial in sweep.trials[:2]:
        summary = {"test_accuracy": 1.0, "parameters": 71, "nfe_forward": 2.0}
        store.folder(trial.id).create(trial)
        store.folder(trial.id).write_result(Result("finished", "", 3, summary, [], 0, 1))
        store.folder(trial.id).write_evaluations([point(0.9, **OWN, samples=32)])
    write_report_folder(sweep, store, tmp_path / "report")
    table = pd.read_csv(tmp_path / "report" / "results.csv", dtype=str, keep_default_na=False)
    assert list(table["solver.steps"]) == ["", "2", "4"]
    assert list(table["epochs"]) == ["3", "3", ""]
    assert list(table["parameters"]) == ["71", "71", ""]
    assert list(table["solver.tol"]) == ["1.0", "", ""]
    assert list(table["nfe_forward"]) == ["2.0", "2.0", ""]
    again = read_results(tmp_path / "report" / "results.csv")
    assert list(again["epochs"].dropna()) == [3, 3]
