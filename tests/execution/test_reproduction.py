import shutil

import pandas as pd
import pytest
import torch

from nodebench.api import write_report
from nodebench.cli.measure import reproduction_text
from nodebench.errors import EvaluationLimit, InputError, StoreError
from nodebench.execution import launch
from nodebench.execution.reproduction.recorded_run import (
    recorded_run,
    recorded_trial,
    sweep_of,
)
from nodebench.execution.reproduction.second_run import run_again
from nodebench.planning.launches import remember
from nodebench.report.analysis.columns import write_table
from nodebench.report.analysis.frames import result_frame
from nodebench.store import Store
from nodebench.sweep import load
from nodebench.training import evaluation
from nodebench.training.trial import run_trial
from tests.support.coarse_reference import coarse_reference
from tests.support.tiny_sweeps import options, tiny

pytestmark = pytest.mark.usefixtures("coarse_reference")


def of_points(folder):
    """A sweep of one trial, evaluated at two kinds of points."""
    about = {"methods": ["dopri5"], "tols": [1e-3], "control": ["sample"], "batch_sizes": [8]}
    return tiny(folder, evaluate=[{"methods": ["euler"], "steps": [4]}, about])


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The store of the finished trial."""
    folder = tmp_path_factory.mktemp("original")
    sweep, store = of_points(folder), Store(folder / "runs")
    with coarse_reference():
        run_trial(sweep.trials[0], store, options(sweep, folder))
    return store.root


@pytest.fixture
def kept(original, tmp_path):
    """The sweep and a copy of its store."""
    shutil.copytree(original, tmp_path / "runs")
    return of_points(tmp_path), Store(tmp_path / "runs")


def again(sweep, record, tmp_path):
    return run_again(sweep.trials[0], record, options(sweep, tmp_path), lambda row: None)


def test_a_trial_run_again_gives_the_same_bits_points_included(kept, tmp_path):
    sweep, store = kept
    record = recorded_run(sweep.trials[0], store, tmp_path / "results.csv")
    found = again(sweep, record, tmp_path)
    assert found.agrees
    assert found.environments == []
    names = {metric.name for metric in found.metrics}
    assert {"test_accuracy", "train_loss", "accuracy under euler steps 4"} <= names
    assert any(name.startswith("nfe_sample_mean under dopri5 control") for name in names)
    assert "epoch_s" not in names
    assert all(metric.is_same_bits for metric in found.metrics)


def test_a_metric_that_differs_is_named_with_both_values(kept, tmp_path):
    sweep, store = kept
    trial = sweep.trials[0]
    record = recorded_run(trial, store, tmp_path / "results.csv")
    other = {**record.metrics, "test_accuracy": record.metrics["test_accuracy"] + 0.1}
    versions = {**record.environment, "torch": "1.0", "instructions": ""}
    found = again(sweep, type(record)("finished", other, versions), tmp_path)
    assert not found.agrees
    assert [m.name for m in found.metrics if not m.agrees] == ["test_accuracy"]
    known = [(name, then) for name, then, _ in found.environments]
    assert known == [("instructions", None), ("torch", "1.0")]
    now = torch.backends.cpu.get_cpu_capability()
    assert f"instructions: not recorded, {now} (now)" in reproduction_text(found)


def test_a_table_where_a_missing_trial_has_no_threads_names_no_difference(kept, tmp_path):
    sweep, store = kept
    trial, table = sweep.trials[0], tmp_path / "results.csv"
    frame = result_frame(sweep, store)
    frame = pd.concat([frame, pd.DataFrame([{"trial_id": "0" * 12, "outcome": "missing"}])])
    write_table("results", frame, tmp_path)
    assert f"{store.folder(trial.id).result().environments[0]['threads']}.0" in table.read_text()
    record = recorded_run(trial, Store(tmp_path / "empty"), table)
    assert again(sweep, record, tmp_path).environments == []


def test_a_point_that_was_measured_and_fails_now_is_named(kept, tmp_path, monkeypatch):
    sweep, store = kept
    record = recorded_run(sweep.trials[0], store, tmp_path / "results.csv")
    measures = evaluation._Meter.measures

    def failing(meter, point, solver):
        if solver.method == "euler":
            raise EvaluationLimit("too many")
        return measures(meter, point, solver)

    monkeypatch.setattr(evaluation._Meter, "measures", failing)
    found = again(sweep, record, tmp_path)
    assert not found.agrees
    assert found.failed_points == ["euler steps 2: nfe", "euler steps 4: nfe"]
    assert all(metric.is_same_bits for metric in found.metrics)
    assert "failed now: euler steps 4: nfe" in reproduction_text(found)


def test_a_trial_of_other_numerics_is_refused_with_the_commit_to_check_out(kept, tmp_path):
    sweep, store = kept
    table = tmp_path / "results.csv"
    table.write_text("id,outcome,commit\nabcdef012345,finished,0123456789ab\n")
    with pytest.raises(
        InputError, match="It ran at commit 0123456789ab: check out the commit that wrote"
    ):
        recorded_trial("abcdef", sweep, store, table)
    assert recorded_trial(sweep.trials[0].id[:6], sweep, store, table) == sweep.trials[0]
    with pytest.raises(StoreError, match="no trial starts with `ffffff` in `tiny`"):
        recorded_trial("ffffff", sweep, store, table)


def test_a_trial_that_its_sweep_no_longer_has_is_run_again_from_the_store(kept, tmp_path):
    sweep, store = kept
    trial = sweep.trials[0]
    changed = tiny(tmp_path, seeds=[1], evaluate={"methods": ["euler"], "steps": [4]})
    found = launch.reproduce(changed, trial.id[:6], store)
    assert found.agrees
    assert "accuracy under euler steps 4" in {metric.name for metric in found.metrics}
    [left_out] = found.unmeasured_points
    assert left_out.startswith("dopri5 control")
    told = f"recorded, but the sweep does not evaluate it: {left_out}"
    assert told in reproduction_text(found).splitlines()


def test_a_trial_of_the_store_is_refused_if_its_code_was_changed(kept, tmp_path, monkeypatch):
    sweep, store = kept
    changed = tiny(tmp_path, seeds=[1])
    monkeypatch.setattr("nodebench.spec.identity.numerics", lambda spec: -1)
    with pytest.raises(InputError, match="its settings now give another id: its numbers come from"):
        launch.reproduce(changed, sweep.trials[0].id, store)


def test_the_sweep_of_a_trial_is_one_that_still_has_it(kept, tmp_path):
    sweep, store = kept
    start = sweep.trials[0].id[:6]
    with pytest.raises(StoreError, match=f"has planned `{start}.*`. Give its sweep file"):
        sweep_of(start, store)
    for changes in (["name=again"], ["name=before"], ["name=before", "seeds=[1]"]):
        remember(load(tmp_path / "tiny.yaml", changes), store)
    before = store.sweep("before")
    before.keep(load(tmp_path / "tiny.yaml", ["name=before", "seeds=[1]"]).text, {})
    assert sweep_of(start, store) == store.sweep("again").file
    shutil.rmtree(store.sweep("again").file.parent)
    remember(load(tmp_path / "tiny.yaml", ["name=before"]), store)
    before.keep("of_another_release: 1", {})
    assert sweep_of(start, store) == before.file
    with pytest.raises(StoreError, match=r"SWEEP` lists a sweep.s\. If a report has it, give"):
        sweep_of("ffffff", store)


def test_a_sweep_without_an_id_is_told_how_an_id_is_given_and_found(tmp_path):
    with pytest.raises(InputError) as caught:
        sweep_of("quickstart", Store(tmp_path / "runs"))
    assert str(caught.value).startswith("`quickstart` is not the start of a trial's id")
    assert "`nodebench repro ID quickstart`" in str(caught.value)
    assert "`nodebench plan quickstart`" in str(caught.value)


def test_a_report_s_table_is_a_record_too(kept, tmp_path):
    sweep, store = kept
    trial = sweep.trials[0]
    summary = store.folder(trial.id).result().summary
    table = tmp_path / "results.csv"
    names = ["id", "outcome", "model.name", *summary]
    values = [trial.id, "finished", "plainode", *map(repr, summary.values())]
    table.write_text(f"{','.join(names)}\n{','.join(values)}\n")
    empty = Store(tmp_path / "empty")
    record = recorded_run(trial, empty, table)
    assert again(sweep, record, tmp_path).agrees
    with pytest.raises(StoreError, match="has no record"):
        recorded_run(trial, empty, tmp_path / "none.csv")


def test_a_report_s_folder_records_evaluated_points_too(kept, tmp_path):
    sweep, store = kept
    folder = write_report(sweep, store, tmp_path / "report").parent
    found = launch.reproduce(folder, sweep.trials[0].id[:6], Store(tmp_path / "empty"))
    assert found.agrees
    assert found.unmatched == found.unmeasured_points == []
    assert "accuracy under euler steps 4" in {metric.name for metric in found.metrics}
