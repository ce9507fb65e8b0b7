import json
import shutil

import pandas as pd
import pytest

from nodebench.execution.runner import Monitor
from tests.support.mlflow_writer import spawned_writers
from tests.support.tiny_sweeps import tiny
from tests.support.tracked_runs import points, runs

pytest.importorskip("mlflow")

from nodebench import api
from nodebench.errors import ResourceError, StoreError, TrackingError
from nodebench.files import write
from nodebench.store import Store
from nodebench.tracking.background import BackgroundTracker
from nodebench.tracking.client import TRIAL_TAG
from nodebench.tracking.conversion import VIEW_TAG
from nodebench.tracking.tracker import REPORT_TAG, Tracker, page_of

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # MLflow's own code warns
    pytest.mark.usefixtures("coarse_reference"),
]


def test_every_trial_is_one_run_with_its_settings_history_and_outcome(trained):
    sweep, store = trained
    Tracker(sweep, store).update_all()
    client, found = runs(sweep, store)
    by_trial = {run.data.tags[TRIAL_TAG]: run for run in found}
    assert len(found) == len(by_trial) == 3
    first, limited = by_trial[sweep.trials[0].id], by_trial[sweep.trials[2].id]
    assert first.data.params == {k: str(v) for k, v in sweep.trials[0].settings.items()}
    assert (first.info.status, first.data.tags["outcome"]) == ("FINISHED", "finished")
    assert (limited.info.status, limited.data.tags["outcome"]) == ("FAILED", "nfe")
    assert first.data.tags["nodebench.threads"] == "1"
    history = client.get_metric_history(first.info.run_id, "test_accuracy")
    rows = store.folder(sweep.trials[0].id).history()
    assert [(p.step, p.value) for p in history] == [(r["epoch"], r["test_accuracy"]) for r in rows]
    names = {artifact.path for artifact in client.list_artifacts(first.info.run_id)}
    assert {"trial.json", "result.json", "history.jsonl", "evaluations.json", "tiny.yaml"} <= names
    assert not {"checkpoint.pt", "lock"} & names


def test_writing_again_changes_nothing(trained):
    sweep, store = trained
    Tracker(sweep, store).update_all()
    before = points(sweep, store)
    assert set(before.values()) == {1}
    client, found = runs(sweep, store)
    for run in found:  # as if the last launch had died before it could note that it was done
        client.delete_tag(run.info.run_id, "nodebench.synced")
    Tracker(sweep, store).update_all()
    assert points(sweep, store) == before


def test_mlflow_deleted_is_rebuilt_from_the_store(trained):
    sweep, store = trained
    Tracker(sweep, store).update_all()
    before = points(sweep, store)
    (store.root / "mlflow.db").unlink()
    shutil.rmtree(store.root / "mlartifacts")
    Tracker(sweep, store).update_all()
    assert points(sweep, store) == before


def test_an_absent_server_does_not_stop_a_sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    outcome = api.run(sweep, store, Monitor(), inline=True, write_report=False)
    assert outcome.complete
    assert outcome.published.tracking_problem is not None
    assert "127.0.0.1:9" in outcome.published.tracking_problem
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert len(api.sync(sweep, store)) == 1


def test_the_mirror_follows_the_store_and_finishes_what_is_left(trained):
    sweep, store = trained
    with spawned_writers(), BackgroundTracker(sweep, store, lambda _: None) as mirror:
        mirror.begin()
    assert mirror.problem is None
    assert len(runs(sweep, store)[1]) == 3


def test_a_mirror_that_never_begins_writes_nothing(trained):
    sweep, store = trained
    with BackgroundTracker(sweep, store, lambda _: None) as mirror:
        mirror._process.join(2)  # MLflow is imported already: it would have written
        assert mirror._process.is_alive()
    assert not mirror._process.is_alive()
    assert not list(store.root.glob("mlflow.db*"))


def test_nothing_is_published_if_ray_cannot_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def refuse(*_arguments, **_how):
        raise ResourceError("Ray cannot be started")

    monkeypatch.setattr("nodebench.execution.launch._runner", refuse)
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    with pytest.raises(ResourceError, match="cannot be started"):
        api.run(sweep, store)
    assert not (store.root / "mlflow.db").exists()
    assert not (tmp_path / "reports").exists()
    assert not store.sweep(sweep.name).file.exists()


def test_a_trial_that_ends_while_it_is_read_is_logged_whole(trained, monkeypatch):
    sweep, store = trained
    folder = store.folder(sweep.trials[0].id)
    rows, result = folder.history(), (folder.path / "result.json").read_text()
    folder.write_history(rows[:1])
    (folder.path / "result.json").unlink()
    tracker = Tracker(sweep, store)
    read = type(folder).history

    def end_after_reading(self):
        found = read(self)
        if self.path == folder.path:
            folder.write_history(rows)
            write(folder.path / "result.json", result)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "history", end_after_reading)
        tracker.update_all()
    Tracker(sweep, store).update_all()
    client, found = runs(sweep, store)
    (run,) = [r for r in found if r.data.tags[TRIAL_TAG] == sweep.trials[0].id]
    assert len(client.get_metric_history(run.info.run_id, "train_loss")) == 3


def test_the_report_is_a_run_with_its_page_figures_and_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep, store = tiny(tmp_path, seeds=[0, 1]), Store(tmp_path / "runs")
    api.run(sweep, store, inline=True)
    client, found = runs(sweep, store)
    [report] = [run for run in found if REPORT_TAG in run.data.tags]
    assert (report.info.run_name, report.info.status) == ("report", "FINISHED")
    names = {artifact.path for artifact in client.list_artifacts(report.info.run_id)}
    assert {"README.md", "report.html", "results.csv", "sweep.yaml", "figures"} <= names
    table = pd.read_csv(tmp_path / "reports" / "tiny" / "results.csv")
    assert "mlflow_run" not in table  # so that it need not wait for MLflow
    for trial_id in table["id"]:
        named = f'tags."nodebench.trial" = "{trial_id}"'  # as docs/mlflow.md says
        [run] = client.search_runs([report.info.experiment_id], named)
        assert run.data.tags[TRIAL_TAG] == trial_id
    page = (tmp_path / "reports" / "tiny" / "README.md").stat().st_mtime_ns
    api.run(sweep, store, inline=True)
    assert (tmp_path / "reports" / "tiny" / "README.md").stat().st_mtime_ns == page
    assert len(runs(sweep, store)[1]) == 3


def test_the_report_is_written_while_mlflow_still_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page, pages = tmp_path / "reports" / "tiny" / "report.html", []

    def noting(step):
        def note_first(self, *arguments):
            pages.append(page.exists())
            return step(self, *arguments)

        return note_first

    for step in ("finish", "__exit__"):  # of which the second waits for MLflow
        monkeypatch.setattr(BackgroundTracker, step, noting(getattr(BackgroundTracker, step)))
    api.run(tiny(tmp_path), Store(tmp_path / "runs"), inline=True)
    assert pages == [False, True]


def test_a_view_of_the_runs_has_what_varies_as_columns(trained):
    sweep, store = trained
    with pytest.raises(TrackingError, match="has no experiment `tiny`"):
        page_of(sweep, store)
    Tracker(sweep, store)
    client, _ = runs(sweep, store)
    experiment = client.get_experiment_by_name(sweep.name)
    shown = json.loads(experiment.tags[VIEW_TAG])["selectedColumns"]
    assert shown == ["metrics.`test_accuracy`", "params.`solver.steps`", "params.`seed`"]
    page = page_of(sweep, store)
    assert page == f"#/experiments/{experiment.experiment_id}/runs?viewStateShareKey=nodebench"


def test_a_sweep_that_varies_something_else_has_other_columns(trained, tmp_path):
    sweep, store = trained
    Tracker(sweep, store)
    Tracker(tiny(tmp_path, grid={"model.width": [4, 8]}), store)
    client, _ = runs(sweep, store)
    assert "model.width" in client.get_experiment_by_name(sweep.name).tags[VIEW_TAG]


def test_a_monitor_that_raises_hears_of_nothing_more_and_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # where nothing answers
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")

    def fail(_problem):
        raise RuntimeError("made up")

    with BackgroundTracker(sweep, store, fail) as mirror:
        mirror.begin()
    assert "cannot be used" in mirror.problem


def test_a_store_that_cannot_be_read_is_not_called_mlflows_fault(trained, monkeypatch):
    sweep, store = trained
    tracker = Tracker(sweep, store)

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder.history_file))

    monkeypatch.setattr("nodebench.store.TrialFolder.history", refuse)
    with pytest.raises(StoreError, match=r"history.jsonl` cannot be read: Permission denied\. MLf"):
        tracker.update_all()
