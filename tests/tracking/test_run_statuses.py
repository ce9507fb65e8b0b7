"""Tests of what MLflow shows of trials that were cut off, crashed or tried again."""

import shutil

import pytest

from tests.support.tiny_sweeps import options, tiny
from tests.support.tracked_runs import points, runs

pytest.importorskip("mlflow")
from mlflow import MlflowClient

from nodebench.execution.runner import Monitor, run_inline
from nodebench.files import write
from nodebench.store import Store
from nodebench.store.locations import tracking_uri
from nodebench.tracking.background import LOST, BackgroundTracker
from nodebench.tracking.client import TRIAL_TAG
from nodebench.tracking.tracker import Tracker

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # MLflow's own code warns
    pytest.mark.usefixtures("coarse_reference"),
]


def test_a_run_cut_off_in_mid_training_goes_on_as_the_same_run(trained):
    sweep, store = trained
    folder = store.folder(sweep.trials[0].id)
    rows, result = folder.history(), (folder.path / "result.json").read_text()
    folder.write_history(rows[:1])
    (folder.path / "result.json").unlink()
    Tracker(sweep, store).update_all()
    folder.write_history(rows)
    write(folder.path / "result.json", result)
    Tracker(sweep, store).update_all()
    client, found = runs(sweep, store)
    assert len(found) == 3
    (same,) = [r for r in found if r.data.tags[TRIAL_TAG] == sweep.trials[0].id]
    assert len(client.get_metric_history(same.info.run_id, "train_loss")) == 3
    assert same.info.status == "FINISHED"
    assert set(points(sweep, store).values()) == {1}


def test_what_a_killed_process_left_is_no_artifact(trained):
    sweep, store = trained
    folder = store.folder(sweep.trials[0].id)
    (folder.path / ".checkpoint.pt.1.partial").write_text("half")
    assert {path.suffix for path in folder.artifacts()} <= {".json", ".jsonl", ".txt"}
    folder.create(sweep.trials[0])
    assert not list(folder.path.glob(".*.partial"))


def unfinish(folder):
    """Leaves a trial as after its first epoch; returns what puts its result back."""
    rows, file = folder.history(), folder.path / "result.json"
    result = file.read_text()
    folder.write_history(rows[:1])
    file.unlink()
    return lambda: write(file, result)


def statuses(sweep, store):
    return {run.data.tags[TRIAL_TAG]: run.info.status for run in runs(sweep, store)[1]}


def test_an_unfinished_run_is_running_while_a_process_holds_its_trial_and_else_killed(trained):
    sweep, store = trained
    first = sweep.trials[0].id
    folder = store.folder(first)
    end = unfinish(folder)
    tracker = Tracker(sweep, store)
    for _ in range(2):
        with folder.locked():
            tracker.update_all()
            assert statuses(sweep, store)[first] == "RUNNING"
        tracker.update_all()
        assert statuses(sweep, store)[first] == "KILLED"
    end()
    tracker.update_all()
    assert statuses(sweep, store)[first] == "FINISHED"


def test_a_killed_run_that_is_no_longer_in_the_sweep_is_not_shown_as_running(trained, tmp_path):
    sweep, store = trained
    first, second = (trial.id for trial in sweep.trials[:2])
    end = unfinish(store.folder(first))
    unfinish(store.folder(second))
    with store.folder(first).locked(), store.folder(second).locked():
        Tracker(sweep, store).update_all()
    other = tiny(tmp_path, seeds=[7])
    shutil.move(store.folder(second).path, tmp_path)  # as if another machine's store had it
    Tracker(other, store).update_all()
    assert statuses(sweep, store) == {
        first: "KILLED",
        second: "RUNNING",
        sweep.trials[2].id: "FAILED",
    }
    end()
    Tracker(other, store).update_all()
    assert statuses(sweep, store)[first] == "FINISHED"


def test_a_run_that_a_slow_server_made_twice_is_left_once(trained):
    sweep, store = trained
    Tracker(sweep, store).update_all()
    before = points(sweep, store)
    client, found = runs(sweep, store)
    twin = client.create_run(found[0].info.experiment_id, tags={TRIAL_TAG: sweep.trials[0].id})
    Tracker(sweep, store).update_all()
    assert twin.info.run_id not in {run.info.run_id for run in runs(sweep, store)[1]}
    assert points(sweep, store) == before


def test_a_mirror_that_is_killed_is_a_problem(trained):
    sweep, store = trained
    with BackgroundTracker(sweep, store, lambda _: None) as mirror:
        mirror.begin()
        mirror.require()  # it has written, and said that all is well
        mirror._process.kill()
        mirror._process.join()
    assert mirror.problem == LOST


def test_an_evaluation_that_crashed_before_its_first_point_keeps_no_trial_from_mlflow(
    tmp_path, monkeypatch
):
    sweep = tiny(tmp_path, seeds=[0, 1], evaluate={"methods": ["euler"], "steps": [2, 4]})
    store = Store(tmp_path / "runs")

    def crash(*_arguments):
        raise RuntimeError("made up")

    with monkeypatch.context() as patch:
        patch.setattr("nodebench.training.trial.evaluate_points", crash)
        run_inline(sweep.trials[:1], store, options(sweep, tmp_path), Monitor())
    run_inline(sweep.trials[1:], store, options(sweep, tmp_path), Monitor())
    Tracker(sweep, store).update_all()
    client, found = runs(sweep, store)
    by_trial = {run.data.tags[TRIAL_TAG]: run for run in found}
    assert by_trial.keys() == {trial.id for trial in sweep.trials}
    crashed = by_trial[sweep.trials[0].id]
    assert (crashed.info.status, crashed.data.tags["outcome"]) == ("FINISHED", "finished")
    assert "error.txt" in {each.path for each in client.list_artifacts(crashed.info.run_id)}


def test_a_crash_that_is_new_is_written_to_mlflow(trained):
    sweep, store = trained
    tracker = Tracker(sweep, store)
    tracker.update_all()
    store.folder(sweep.trials[0].id).write_error("made up")
    tracker.update_all()
    client, found = runs(sweep, store)
    (run,) = [run for run in found if run.data.tags[TRIAL_TAG] == sweep.trials[0].id]
    assert "error.txt" in {each.path for each in client.list_artifacts(run.info.run_id)}


def test_a_trial_that_is_tried_again_is_running_and_has_no_end_meanwhile(trained):
    sweep, store = trained
    tracker = Tracker(sweep, store)
    tracker.update_all()
    client = MlflowClient(tracking_uri(store))
    limited = store.folder(sweep.trials[2].id)

    def run():
        (found,) = [r for r in runs(sweep, store)[1] if r.data.tags[TRIAL_TAG] == limited.path.name]
        return found

    rows = [dict(row, epoch=1) for row in store.folder(sweep.trials[0].id).history()[:1]]
    with limited.locked():  # the earlier attempt's result is still there
        limited.write_history(rows)
        tracker.update_all()
        assert run().info.status == "RUNNING"
        assert len(client.get_metric_history(run().info.run_id, "train_loss")) == 1
        tracker.update_all()
        assert run().info.status == "RUNNING"
    tracker.update_all()  # and was killed: the earlier end stands
    assert run().info.status == "FAILED"
