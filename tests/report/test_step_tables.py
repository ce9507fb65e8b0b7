"""Tables of adaptive solvers' steps, while training and by test batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nodebench.report import notes, step_tables
from nodebench.report.analysis import frames
from nodebench.report.page import write_report_folder
from nodebench.spec.solver import Solver
from nodebench.store import Result, Store
from nodebench.store.rows import Row
from nodebench.sweep import Sweep
from nodebench.training.trial import run_trial
from tests.support.tiny_sweeps import options, point, tiny

DOPRI5 = Solver(method="dopri5", tol=1e-3)
CONTROLS = [{"step": "batch"}, {"step": "sample"}]
GRID = {"solver.control": CONTROLS}
BASE = {
    "data": {"name": "spheres", "train_size": 64, "test_size": 32},
    "model": {"name": "plainode", "width": 4},
    "solver": {"method": "dopri5", "tol": 1e-3},
    "train": {"epochs": 1, "batch_size": 16},
}
BLOCK = {"methods": ["dopri5"], "tols": [1e-3], "control": ["batch", "sample"], "batch_sizes": [8]}


def swept(folder: Path, **fields: Any) -> tuple[Sweep, Store]:
    return tiny(folder, **{"base": BASE, "grid": GRID, **fields}), Store(folder / "runs")


def write(sweep: Sweep, store: Store, *summaries: dict[str, float]) -> None:
    for trial, summary in zip(sweep.trials, summaries, strict=True):
        store.folder(trial.id).write_result(Result("finished", "", 1, summary, [], 0, 1))


def test_steps_of_training_are_a_row_a_configuration(tmp_path: Path) -> None:
    sweep, store = swept(tmp_path, seeds=[0, 1])
    batch = [{"nfe_forward": 26.0 + n, "steps_accepted": 4.0 + n, "steps_rejected": 0.5}
             for n in (0, 2)]  # fmt: skip
    own = {"nfe_sample_min": 14.0, "nfe_sample_mean": 20.0, "nfe_sample_max": 38.0}
    write(sweep, store, *batch, *({**row, **own} for row in batch))
    table = step_tables.steps_table(frames.result_frame(sweep, store))
    assert list(table["n"]) == ["2", "2"]
    assert list(table["NFE"]) == ["27.0 (26.0, 28.0)"] * 2
    assert list(table["accepted"]) == ["5.0 (4.0, 6.0)"] * 2
    assert list(table["NFE of a sample: min"]) == ["–", "14"]
    assert list(table["mean"]) == ["–", "20"]
    assert list(table["max"]) == ["–", "38"]


def test_empty_columns_and_empty_tables_are_left_out(tmp_path: Path) -> None:
    sweep, store = swept(tmp_path)
    write(sweep, store, *({"nfe_forward": 26.0, "steps_accepted": 4.0} for _ in range(2)))
    table = step_tables.steps_table(frames.result_frame(sweep, store))
    assert list(table) == ["configuration", "NFE", "accepted", "n"]
    write(sweep, store, {"nfe_forward": 26.0}, {"nfe_forward": 26.0})
    assert step_tables.steps_table(frames.result_frame(sweep, store)).empty


def batch_rows(step: str, **measures: float) -> Row:
    row = point(0.75, DOPRI5, method="dopri5", tol=1e-3, control=step, batch_size=8)
    return row | {"samples_per_pass": 8.0, "forward_s": 0.004, **measures}


def test_test_batches_are_a_row_each_with_seconds_of_a_sample(tmp_path: Path) -> None:
    sweep, store = swept(tmp_path, grid={}, evaluate=BLOCK)
    own = {"nfe_sample_min": 14.0, "nfe_sample_mean": 17.0, "nfe_sample_max": 26.0}
    batch = batch_rows("batch", nfe=20.0, steps_accepted=3.0, steps_rejected=0.0)
    sample = batch_rows("sample", nfe=26.0, steps_accepted=2.5, steps_rejected=0.5, **own)
    store.folder(sweep.trials[0].id).write_evaluations([batch, sample])
    frame = frames.batch_frame(sweep, store)
    assert frames.evaluation_frame(sweep, store).empty
    table = step_tables.batches_table(frame)
    assert list(table["step per"]) == ["batch", "sample"]
    assert list(table["batch size"]) == ["8", "8"]
    assert list(table["accuracy %"]) == ["75.00", "75.00"]
    assert list(table["NFE"]) == ["20", "26"]
    assert list(table["accepted"]) == ["3", "2.5"]
    assert list(table["ms/sample"]) == ["0.500", "0.500"]
    assert list(table["mean"]) == ["–", "17"]


def test_points_on_different_test_samples_are_not_averaged(tmp_path: Path) -> None:
    blocks = [{**BLOCK, "control": ["sample"], **size} for size in ({}, {"test_size": 16})]
    sweep, store = swept(tmp_path, grid={}, evaluate=blocks)
    few = point(
        0.5, DOPRI5, method="dopri5", tol=1e-3, control="sample", batch_size=8, test_size=16
    )
    rows = [batch_rows("sample", nfe=26.0), few | {"samples_per_pass": 8.0}]
    store.folder(sweep.trials[0].id).write_evaluations(rows)
    table = step_tables.batches_table(frames.batch_frame(sweep, store))
    assert list(table["test_size"]) == ["all", "16"]
    assert list(table["accuracy %"]) == ["75.00", "50.00"]


def test_a_point_that_failed_is_named_in_its_row(tmp_path: Path) -> None:
    sweep, store = swept(tmp_path, grid={}, seeds=[0, 1], evaluate={**BLOCK, "control": ["sample"]})
    fields = {"method": "dopri5", "tol": 1e-3, "control": "sample", "batch_size": 8}
    good = batch_rows("sample", nfe=26.0)
    for trial, row in zip(sweep.trials, [good, point("underflow", DOPRI5, **fields)], strict=True):
        store.folder(trial.id).write_evaluations([row])
    table = step_tables.batches_table(frames.batch_frame(sweep, store))
    assert list(table["accuracy %"]) == ["75.00, 1 underflow"]
    assert list(table["n"]) == ["1"]
    assert step_tables.batches_table(pd.DataFrame()).empty


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Path]:
    folder = tmp_path_factory.mktemp("report")
    sweep, store = swept(folder, evaluate=BLOCK)
    for trial in sweep.trials:
        assert run_trial(trial, store, options(sweep, folder)).outcome == "finished"
    return sweep, write_report_folder(sweep, store, folder / "report").page.parent


def test_the_report_has_both_tables_and_the_data(report: tuple[Sweep, Path]) -> None:
    _, folder = report
    page = (folder / "README.md").read_text(encoding="utf-8")
    for title, note in (
        ("Steps of adaptive solvers", f"{notes.TRAINING_STEPS} {notes.STEPS_PER_SAMPLE}"),
        ("Steps by test batch", notes.TEST_BATCHES),
    ):
        assert f"## {title}\n\n{note}\n\n|" in page
    batches = pd.read_csv(folder / "batches.csv")
    assert len(batches) == 4
    assert set(batches["step of"]) == {"batch", "sample"}
    assert set(batches["test.control.step"]) == {"batch", "sample"}
    assert batches["nfe_sample_mean"].notna().sum() == 2
    results = pd.read_csv(folder / "results.csv")
    assert (results["steps_accepted"] >= 1).all()
    assert results["nfe_sample_mean"].notna().tolist() == [False, True]
    assert not (folder / "evaluations.csv").exists()


def test_a_claim_may_be_about_steps(report: tuple[Sweep, Path], tmp_path: Path) -> None:
    claim = {"says": "fewer", "of": {"solver.control.step": "sample"}, "metric": "nfe_sample_mean",
             "below": 1000}  # fmt: skip
    sweep = tiny(tmp_path, base=BASE, grid=GRID, claims=[claim])
    assert sweep.claims[0].metric == "nfe_sample_mean"
    assert [trial.id for trial in sweep.trials] == [trial.id for trial in report[0].trials]
