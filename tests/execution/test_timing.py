import shutil

import pandas as pd
import pytest
import torch

from nodebench.api import run, write_report
from nodebench.errors import InputError
from nodebench.execution import launch
from nodebench.execution.publishing import Publication
from nodebench.execution.runner import Monitor
from nodebench.execution.timing import time_trials
from nodebench.report.analysis import frames
from nodebench.report.analysis.findings import all_results
from nodebench.report.result_tables import result_tables
from nodebench.store import Store
from nodebench.training.checkpoint import trained_model
from nodebench.training.trial import run_trial
from tests.support.tiny_sweeps import TINY, options, tiny

PAGE_ALONE = Publication(track=False)


def of_two_cells(folder):
    """Of two cells with two seeds, the second cell takes a thousand times the steps."""
    base = {**TINY, "train": {**TINY["train"], "epochs": 1}}
    return tiny(folder, base=base, grid={"solver.steps": [4, 4000]}, seeds=[0, 1])


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The store of the finished sweep."""
    folder = tmp_path_factory.mktemp("original")
    sweep, store = of_two_cells(folder), Store(folder / "runs")
    for trial in sweep.trials:
        run_trial(trial, store, options(sweep, folder))
    return store.root


@pytest.fixture
def two_cells(original, tmp_path):
    """The sweep and a copy of its store."""
    shutil.copytree(original, tmp_path / "runs")
    return of_two_cells(tmp_path), Store(tmp_path / "runs")


@pytest.fixture
def load(monkeypatch):
    """Sets the load that the machine says it has had in the last minute."""

    def has_been(value: float) -> None:
        monkeypatch.setattr("os.getloadavg", lambda: (value, 0.0, 0.0))

    return has_been


def seconds(store, trial):
    (row,) = store.folder(trial.id).timings()
    return row["step_s"]


def test_a_row_has_the_median_round_and_the_whole_epoch(two_cells, tmp_path):
    sweep, store = two_cells
    trial = sweep.trials[0]
    rows, problems = time_trials([trial], store, options(sweep, tmp_path), steps=7, rounds=3)
    (row,) = store.folder(trial.id).timings()
    assert rows == {trial.id: row}
    assert problems == {}
    assert (row["steps"], row["rounds"], row["threads"]) == (7, 3, 1)
    assert 0 < row["step_s_least"] <= row["step_s"] <= row["step_s_most"]
    assert row["timed_epoch_s"] == pytest.approx(4 * row["step_s"])  # 64 samples by 16
    assert (row["nfe_forward"], row["nfe_backward"]) == (4, 0)


def test_a_step_of_a_thousand_times_the_evaluations_takes_more_memory(two_cells, tmp_path):
    sweep, store = two_cells
    coarse, fine = sweep.trials[0], sweep.trials[2]
    time_trials([coarse, fine], store, options(sweep, tmp_path), steps=1, rounds=1)
    few, many = (store.folder(t.id).timings()[0]["step_memory_bytes"] for t in (coarse, fine))
    # Each evaluation keeps the inputs of its layers, of 2, 4 and 4 numbers, and as many gradients.
    assert many - few > 3996 * 16 * 4 * (2 + 4 + 4)
    results = all_results(sweep, store)
    assert results.set_index("trial_id").loc[fine.id, "step_memory_bytes"] == many
    page = write_report(sweep, store, tmp_path / "report").read_text()
    assert "MB/step" in page


def test_a_thousand_times_the_steps_take_longer(two_cells, tmp_path):
    sweep, store = two_cells
    coarse, fine = sweep.trials[0], sweep.trials[2]
    time_trials([coarse, fine], store, options(sweep, tmp_path), steps=20, rounds=5)
    assert seconds(store, fine) > 2 * seconds(store, coarse)


def test_timing_leaves_the_trained_model_as_it_is(two_cells, tmp_path):
    sweep, store = two_cells
    folder = store.folder(sweep.trials[0].id)
    before = trained_model(folder, tmp_path).state_dict()
    content = folder.checkpoint.read_bytes()
    time_trials(sweep.trials, store, options(sweep, tmp_path), steps=2, rounds=1)
    after = trained_model(folder, tmp_path).state_dict()
    assert folder.checkpoint.read_bytes() == content
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_adaptive_solver_is_timed_where_training_ended(tmp_path):
    base = {**TINY, "solver": {"method": "dopri5", "tol": 1e-3}}
    sweep, store = tiny(tmp_path, base=base), Store(tmp_path / "runs")
    (trial,) = sweep.trials
    run_trial(trial, store, options(sweep, tmp_path))
    time_trials([trial], store, options(sweep, tmp_path), steps=4, rounds=1)
    (row,) = store.folder(trial.id).timings()
    assert row["nfe_forward"] >= 8
    assert row["nfe_forward"] == pytest.approx(
        store.folder(trial.id).history()[-1]["nfe_forward"], rel=0.5
    )


def test_of_one_machine_the_newest_is_kept_and_of_another_both(two_cells):
    sweep, store = two_cells
    folder = store.folder(sweep.trials[0].id)
    row = {"hardware": "abacus", "device": "cpu", "threads": 1, "torch": "2", "time": 5.0}
    for other in ({}, {"time": 6.0}, {"time": 4.0}, {"hardware": "loom"}):
        folder.add_timing({**row, **other})
    assert [(r["hardware"], r["time"]) for r in folder.timings()] == [("abacus", 6), ("loom", 5)]


def test_one_trial_of_each_cell_is_timed_and_the_report_has_it(
    two_cells, load, monkeypatch, tmp_path
):
    load(0.1)
    monkeypatch.chdir(tmp_path)
    sweep, store = two_cells
    rounds = []
    timed = launch.time_cells(
        sweep, store, Monitor(), PAGE_ALONE, steps=2, rounds=2, on_round=rounds.append
    )  # fmt: skip
    assert list(timed.rows) == [sweep.trials[0].id, sweep.trials[2].id]
    assert (timed.problems, timed.untimed, rounds) == ({}, 0, [1, 2])
    page = timed.published.page.read_text()
    assert "## Cost of a training step" in page
    assert "‡" not in page
    assert len(pd.read_csv(timed.published.page.with_name("timings.csv"))) == 2


def test_times_of_a_machine_that_was_not_idle_are_marked(two_cells, load, tmp_path):
    load(3.0)
    sweep, store = two_cells
    time_trials(sweep.trials[:1], store, options(sweep, tmp_path), steps=1, rounds=1)
    page = write_report(sweep, store, tmp_path / "report").read_text()
    assert "s/epoch ‡" in page
    assert "that was not idle" in page


def both_tables(*frames_of_a_sweep):
    """The columns of the main table and of the details."""
    shown = result_tables(*frames_of_a_sweep)
    return shown.main.join(shown.details)


def test_the_table_says_on_which_machine_if_there_are_several(two_cells, load, tmp_path):
    load(0.1)
    sweep, store = two_cells
    time_trials(sweep.trials[:1], store, options(sweep, tmp_path), steps=1, rounds=1)
    folder = store.folder(sweep.trials[0].id)
    folder.add_timing({**folder.timings()[0], "hardware": "abacus", "timed_epoch_s": 1234.0})
    results, judged = frames.result_frame(sweep, store), pd.DataFrame()
    shown = both_tables(sweep, results, judged, frames.timing_frame(sweep, store))
    version = folder.timings()[0]["torch"]
    assert list(shown[f"s/epoch on abacus, 1 thread, torch {version}"]) == ["1230", "–"]
    assert len([column for column in shown if column.startswith("s/epoch")]) == 2
    folder.add_timing({**folder.timings()[0], "torch": "another"})
    shown = both_tables(sweep, results, judged, frames.timing_frame(sweep, store))
    assert len([column for column in shown if column.startswith("s/epoch")]) == 3


def test_without_a_timing_the_seconds_are_marked_as_shared(two_cells, tmp_path):
    sweep, store = two_cells
    page = write_report(sweep, store, tmp_path / "report").read_text()
    assert "s/epoch ‡" in page
    assert "Do not compare them" in " ".join(page.split())
    assert "## Cost of a training step" not in page


def test_there_is_nothing_to_time_without_checkpoints(two_cells, tmp_path):
    sweep, store = two_cells
    for trial in sweep.trials:
        store.folder(trial.id).checkpoint.unlink()
    with pytest.raises(InputError, match="the checkpoints have been deleted"):
        launch.time_cells(sweep, store, Monitor(), PAGE_ALONE)


def test_there_is_nothing_to_time_before_a_trial_has_finished(tmp_path):
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    with pytest.raises(InputError, match="no trial has finished yet"):
        launch.time_cells(sweep, store, Monitor(), PAGE_ALONE)
    run(sweep, store, Monitor(), inline=True, track=False, write_report=False)
    assert (
        launch.time_cells(
            sweep, store, Monitor(), Publication(track=False, write_report=False)
        ).untimed
        == 0
    )


def test_a_damaged_checkpoint_keeps_no_other_cell_from_being_timed(two_cells, tmp_path):
    sweep, store = two_cells
    damaged, sound = (store.folder(trial.id) for trial in sweep.trials[:2])
    damaged.checkpoint.write_bytes(b"damaged")
    rows, problems = time_trials(
        sweep.trials[:2], store, options(sweep, tmp_path), steps=1, rounds=1
    )
    assert rows.keys() == {sound.path.name}
    assert "is damaged" in problems[damaged.path.name]
    assert len(sound.timings()) == 1
