from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from nodebench.spec.vocabulary import GRADIENT_ERROR_NUMBERS
from nodebench.store import Result, Store, TrialFolder
from nodebench.store.rows import ERRORS_RULE
from tests.support.tiny_sweeps import tiny

RESULT = Result("finished", "", 1, {}, [], 1.0, 2.0)


def paths_of(folder):
    """What the folder's attributes say of its files."""
    found = [getattr(folder, name) for name in vars(TrialFolder)]
    return {path for path in found if isinstance(path, Path)}


def test_every_file_that_a_trial_writes_is_an_attribute(tmp_path):
    [trial] = tiny(tmp_path).trials
    folder = Store(tmp_path / "runs").folder(trial.id)
    folder.create(trial)
    folder.write_history([{"epoch": 1}])
    folder.write_evaluations([])
    folder.write_trajectories([])
    folder.add_timing({"hardware": "a", "device": "cpu", "threads": 1, "torch": "2", "time": 1.0})
    folder.write_elsewhere([RESULT])
    folder.write_error("Traceback")
    folder.write_result(RESULT)
    folder.give_up()
    for checkpoint in (folder.checkpoint, folder.checkpoint_before, folder.retraining):
        checkpoint.touch()
    with folder.locked():
        assert set(folder.path.iterdir()) == paths_of(folder)
        assert set(folder.files()) == paths_of(folder) - {folder.lock_file}


def test_errors_by_an_older_rule_are_left_out_of_a_point(tmp_path):
    folder = Store(tmp_path).folder("aa")
    kept = {"point": {"method": "euler", "gradient": "adjoint"}, "outcome": "finished", "nfe": 8}
    errors = dict.fromkeys(
        (*GRADIENT_ERROR_NUMBERS, "gradient_cosine", "solver_error", "order"), 0.5
    )
    folder.path.mkdir(parents=True)
    folder.write_evaluations([{**kept, **errors, "errors_rule": ERRORS_RULE}])
    assert set(folder.evaluations()[0]) == {*kept, *errors, "errors_rule"}
    folder.write_evaluations([{**kept, **errors, "errors_rule": ERRORS_RULE - 1}])
    assert set(folder.evaluations()[0]) == {*kept, "errors_rule"}


def test_what_is_half_written_does_not_belong_to_a_trial(tmp_path):
    folder = Store(tmp_path).folder("aa")
    assert folder.files() == []
    folder.path.mkdir(parents=True)
    partial = folder.path / ".result.json.1.partial"
    partial.touch()
    assert (folder.files(), folder.partial_files()) == ([], [partial])


def test_word_of_a_search_is_taken_once(tmp_path):
    folder = Store(tmp_path).folder("aa")
    folder.path.mkdir(parents=True)
    folder.give_up()
    assert [folder.take_given_up(), folder.take_given_up()] == [True, False]


def test_a_store_lists_its_folders_and_the_sweeps_that_it_keeps(tmp_path):
    store = Store(tmp_path)
    assert (list(store.trial_folders()), store.sweep_records()) == ([], [])
    store.sweep("one").keep("name: one\n", {"aa": "its label"})
    for name in ("bb", "aa"):
        store.folder(name).path.mkdir(parents=True)
    (store.trials_root / "stray").touch()
    store.sweep("two").keep_memo(tracked="state")
    with store.sweep("three").run_lock():
        assert [path.name for path in store.sweep_locks()] == ["three.lock"]
    assert [folder.path.name for folder in store.trial_folders()] == ["aa", "bb"]
    assert [record.name for record in store.sweep_records()] == ["one", "two"]
    assert store.sweep("one").labels() == {"aa": "its label"}


def test_a_result_of_a_newer_release_is_still_a_result(tmp_path):
    folder = Store(tmp_path).folder("aa")
    folder.write_result(RESULT)
    values = json.loads(folder.result_file.read_text())
    folder.result_file.write_text(json.dumps({**values, "colour": "blue"}))
    assert folder.result() == RESULT
    folder.result_file.write_text("[1, 2]")
    assert folder.result() is None


def test_a_result_of_an_earlier_release_has_the_seconds_of_its_last_attempt(tmp_path):
    folder = Store(tmp_path).folder("aa")
    folder.write_result(replace(RESULT, trained_s=9.0))
    assert folder.result().seconds == 9.0
    values = json.loads(folder.result_file.read_text())
    del values["trained_s"]
    folder.result_file.write_text(json.dumps(values))
    assert folder.result() == RESULT
    assert folder.result().seconds == 1.0
