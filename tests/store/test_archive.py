"""An archive: what goes in comes out, and what both stores have is kept."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from nodebench import api
from nodebench.errors import StoreError
from nodebench.store import Store
from nodebench.store.archive import MANIFEST, TRIAL_FILES
from nodebench.store.merge import merge_store
from tests.support.archives import RESULT, THERE, content, exported, filled, names
from tests.support.tiny_sweeps import tiny


def test_what_is_exported_comes_out_the_same_in_another_store(tmp_path):
    sweep, store = filled(tmp_path / "a")
    file, ids = api.export_archive(sweep, tmp_path / "a.zip", store, weights=True)
    assert ids == [trial.id for trial in sweep.trials]
    other = Store(tmp_path / "b" / "runs")
    found = api.import_archive(file, other)
    assert found.merged.copied == sorted(ids)
    assert (found.sweep.name, found.is_sweep_kept) == ("tiny", True)
    trials = {k: v for k, v in content(store).items() if k.startswith("trials")}
    expected = {k: v for k, v in trials.items() if not k.endswith(".txt")}
    assert {k: v for k, v in content(other).items() if k.startswith("trials")} == expected
    assert other.sweep("tiny").file.read_text() == sweep.text
    assert other.results().keys() == set(ids)
    assert not list(other.root.glob(".import-*"))


def test_an_archive_has_neither_logs_nor_weights_unless_these_are_asked_for(tmp_path):
    file = exported(tmp_path / "a")
    assert {Path(name).name for name in names(file)} == {
        MANIFEST, "sweep.yaml", "trial.json", "history.jsonl", "evaluations.json", "result.json",
    }  # fmt: skip
    with zipfile.ZipFile(file) as archive:
        assert all(b"secret" not in archive.read(name) for name in archive.namelist())
    assert "checkpoint.pt" in {Path(n).name for n in names(exported(tmp_path / "b", weights=True))}


def test_two_exports_of_the_same_trials_are_the_same_file(tmp_path):
    sweep, store = filled(tmp_path / "a")
    one, _ = api.export_archive(sweep, tmp_path / "1.zip", store)
    two, _ = api.export_archive(sweep, tmp_path / "2.zip", store)
    assert one.read_bytes() == two.read_bytes()


def test_trials_without_a_result_and_running_ones_are_left_out(tmp_path):
    sweep, store = filled(tmp_path / "a", seeds=(0, 1, 2))
    first, second, third = (store.folder(trial.id) for trial in sweep.trials)
    first.write_result(replace(RESULT, outcome="error"))
    with second.locked():
        _, ids = api.export_archive(sweep, tmp_path / "a.zip", store)
    assert ids == [third.path.name]


def test_nothing_is_written_where_nothing_is_finished_or_something_else_lies(tmp_path):
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    file = tmp_path / "a.zip"
    with pytest.raises(StoreError, match="no trial has a result yet"):
        api.export_archive(sweep, file, store)
    assert not file.exists()
    file.write_text("mine")
    with pytest.raises(StoreError, match="is not replaced"):
        api.export_archive(sweep, file, store)
    assert file.read_text() == "mine"


def test_of_a_trial_that_both_have_ours_is_kept_and_theirs_is_kept_beside_it_once(tmp_path):
    sweep, ours = filled(tmp_path / "a")
    _, theirs = filled(tmp_path / "b", environment=THERE, accuracy=0.6, started=7.0)
    file, _ = api.export_archive(sweep, tmp_path / "b.zip", theirs)
    before = ours.results()
    for _ in range(2):
        found = api.import_archive(file, ours)
        assert len(found.merged.conflicts) == 2
        assert ours.results() == before
        for trial in sweep.trials:
            (end,) = ours.folder(trial.id).elsewhere()
            assert end.environments == [THERE]
            assert end.summary["test_accuracy"] == 0.6 + trial.spec.seed / 10
    back, _ = api.export_archive(sweep, tmp_path / "a.zip", ours)
    api.import_archive(back, theirs)  # with their own ends in it, which are not kept twice
    assert [len(theirs.folder(t.id).elsewhere()) for t in sweep.trials] == [1, 1]
    third = Store(tmp_path / "c" / "runs")
    api.import_archive(back, third)
    assert [len(third.folder(t.id).elsewhere()) for t in sweep.trials] == [1, 1]


def test_two_runs_that_resumed_one_checkpoint_on_one_host_are_two(tmp_path):
    sweep, ours = filled(tmp_path / "a")
    _, theirs = filled(tmp_path / "b", accuracy=0.6)  # which began when ours did
    for trial_id, result in theirs.results().items():
        theirs.folder(trial_id).write_result(replace(result, finished=9.0))
    for _ in range(2):
        merge_store(ours.results(), theirs, ours)
        for trial in sweep.trials:
            assert [end.finished for end in ours.folder(trial.id).elsewhere()] == [9.0]


def test_our_own_export_changes_nothing_here(tmp_path):
    sweep, store = filled(tmp_path / "a")
    file, _ = api.export_archive(sweep, tmp_path / "a.zip", store)
    found = api.import_archive(file, store)
    assert sorted(found.merged.kept) == sorted(trial.id for trial in sweep.trials)
    assert all(store.folder(trial.id).elsewhere() == [] for trial in sweep.trials)
    assert not any(store.folder(trial.id).elsewhere_file.exists() for trial in sweep.trials)


def test_another_sweep_of_the_name_stays_unless_it_is_replaced(tmp_path):
    file = exported(tmp_path / "a")
    sweep, store = filled(tmp_path / "b", seeds=(5,))
    store.sweep("tiny").keep(sweep.text, {})
    assert api.import_archive(file, store).is_sweep_kept is False
    assert store.sweep("tiny").file.read_text() == sweep.text
    assert len(store.trial_ids()) == 3
    assert len(store.sweep("tiny").labels()) == 2
    assert api.import_archive(file, store, replace_other=True).is_sweep_kept is True
    assert store.sweep("tiny").file.read_text() == tiny(tmp_path, seeds=[0, 1]).text


def test_timings_of_another_machine_are_taken_over(tmp_path):
    sweep, ours = filled(tmp_path / "a")
    _, theirs = filled(tmp_path / "b", environment=THERE, accuracy=0.6, started=7.0)
    timing = {"hardware": "another CPU", "device": "cpu", "threads": 1, "torch": "2.0", "time": 1.0}
    first = sweep.trials[0].id
    theirs.folder(first).add_timing(timing)
    merge_store([first], theirs, ours)
    assert ours.folder(first).timings() == [timing]


def test_a_trial_begun_with_weights_is_taken_in_under_its_own_id_alone(tmp_path):
    weights = tmp_path / "begin.pt"
    weights.write_bytes(b"weights")
    sweep, store = filled(tmp_path / "a", seeds=(0,), weights=str(weights))
    [trial] = sweep.trials
    file, _ = api.export_archive(sweep, tmp_path / "a.zip", store)
    weights.unlink()  # which the other machine does not have
    assert api.import_archive(file, Store(tmp_path / "b")).merged.copied == [trial.id]
    record = json.loads(store.folder(trial.id).spec_file.read_text())
    for said in ({"weights": "0" * 64}, {"weights": None}):
        store.folder(trial.id).spec_file.write_text(json.dumps(record | said))
        forged, _ = api.export_archive(sweep, tmp_path / f"{len(str(said))}.zip", store)
        with pytest.raises(StoreError, match="is not what its id says"):
            api.import_archive(forged, Store(tmp_path / "c"))


def test_an_archive_may_contain_what_is_reported_the_spec_and_the_weights(tmp_path):
    folder = Store(tmp_path).folder("aa")
    folder.path.mkdir(parents=True)
    folder.write_elsewhere([])
    files = (folder.spec_file, *folder.reported_files, folder.checkpoint)
    assert {path.name for path in files} == TRIAL_FILES
