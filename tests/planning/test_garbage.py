import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from nodebench import api
from nodebench.cli.manage import survey_text
from nodebench.errors import InputError
from nodebench.execution.runner import Monitor
from nodebench.planning.garbage import Wish, bytes_of, remove, survey_store
from nodebench.store import Store
from nodebench.store.scratch import LOCK, abandoned, claimed, new_folder, scratch
from tests.support.made_up_trials import ALL, KB, RESULT, everything, known, put
from tests.support.tiny_sweeps import TINY, tiny, write_tiny


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def names(items):
    return [(item.kind, item.trial_id or item.paths[0].name) for item in items]


def test_a_survey_alone_removes_nothing(tmp_path, store):
    known(tiny(tmp_path), store)
    put(store, "orphan")
    before = everything(store)
    assert survey_store(store, ALL).chosen
    assert everything(store) == before


def test_by_default_only_what_killed_processes_left_goes(tmp_path, store):
    (planned,) = known(tiny(tmp_path), store)
    put(store, planned)
    put(store, "orphan")
    partials = [
        store.folder(planned).path / ".checkpoint.pt.7.partial",
        store.root / ".index.json.7.partial",
        store.root / "sweeps" / ".tiny.yaml.7.partial",
    ]
    fresh = store.root / ".index.json.8.partial"
    for path in (*partials, fresh):
        path.write_text("half")
    for path in partials:
        os.utime(path, (1, 1))
    others = [new_folder(store.root, kind) for kind in ("ray", "merge")]
    for folder in others:
        folder.mkdir()
        (folder / LOCK).touch()  # which nobody holds
        (folder / "file").write_text("x" * KB)
    with claimed(store.root, "ray") as mine:
        found = survey_store(store, Wish())
    paths = {path for item in found.chosen for path in item.paths}
    assert paths == {*partials, *others}
    assert remove(store, found.chosen) == []
    assert not any(path.exists() for path in paths)
    assert mine.exists()
    assert fresh.exists()
    assert store.folder(planned).checkpoint.exists()
    assert store.folder("orphan").checkpoint.exists()


DIES = """
import os, sys
from pathlib import Path
from nodebench.store.scratch import scratch
with scratch(Path(sys.argv[1]), "merge") as folder:
    (folder / "half").write_text("of a trial")
    os._exit(9)
"""


def test_a_process_that_died_is_told_from_one_that_lives_whatever_its_number(tmp_path):
    for kind in ("merge", "ray"):
        left = tmp_path / f".{kind}-{socket.gethostname()}-{os.getpid()}"  # as in a container
        left.mkdir()
        (left / LOCK).touch()
        assert list(abandoned(tmp_path, kind)) == [left]
    subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], check=False)
    [left] = abandoned(tmp_path, "merge")  # the one before was cleared away
    assert (left / "half").exists()
    with scratch(tmp_path, "merge") as one, scratch(tmp_path, "merge") as other:
        assert one != other
        assert set(tmp_path.glob(".merge-*")) == {one, other}
    assert list(tmp_path.glob(".merge-*")) == []


def test_folders_of_another_machine_stay_while_anything_runs(tmp_path, store):
    folder = store.root / ".ray-elsewhere-1"
    folder.mkdir(parents=True)
    assert survey_store(store, Wish()).items == []
    os.utime(folder, (1, 1))
    with store.sweep("tiny").run_lock():
        assert survey_store(store, Wish()).items == []
    assert names(survey_store(store, Wish()).items) == [("leftovers", ".ray-elsewhere-1")]


def test_a_finished_trial_without_its_checkpoint_is_still_done(tmp_path, store):
    sweep = tiny(tmp_path, evaluate={"methods": ["euler"], "steps": [4]})
    api.run(sweep, store, Monitor(), inline=True, track=False, write_report=False)
    before = everything(store)
    found = survey_store(store, Wish(frozenset({"checkpoints"})))
    assert names(found.chosen) == [("checkpoints", sweep.trials[0].id)]
    remove(store, found.chosen)
    gone = before.keys() - everything(store).keys()
    assert gone == {f"trials/{sweep.trials[0].id}/checkpoint.pt"}
    (entry,) = api.plan(sweep, store)
    assert (entry.state, entry.missing, entry.is_trained) == ("done", False, True)
    assert survey_store(store, ALL).chosen == []


def test_a_checkpoint_that_a_known_sweep_needs_stays(tmp_path, store):
    sweep = tiny(tmp_path, evaluate={"methods": ["euler"], "steps": [4]}, seeds=[0, 1, 2])
    ids = known(sweep, store)
    put(store, ids[0])  # its points are missing
    put(store, ids[1], result=None)  # interrupted
    put(store, "shorter", recipe=sweep.trials[2].recipe_id)  # from which the third would go on
    assert survey_store(store, ALL).items == []


def test_only_trials_of_no_known_sweep_are_orphans(tmp_path, store):
    (one,) = known(tiny(tmp_path, name="one"), store)
    (two,) = known(tiny(tmp_path, name="two", seeds=[2]), store)
    three = tiny(tmp_path, name="three", seeds=[3]).trials[0].id
    for trial_id in (one, two, three):
        put(store, trial_id, checkpoint=0)
    put(store, "orphan")
    put(store, "begun", result=None)
    file = write_tiny(tmp_path, "three", seeds=[3])
    found = survey_store(store, Wish(frozenset({"orphans"})), [file])
    assert {item.trial_id for item in found.chosen} == {"orphan", "begun"}
    assert remove(store, found.chosen) == []
    assert {path.name for path in (store.root / "trials").iterdir()} == {one, two, three}
    assert not list(store.root.glob(".gone-*"))
    assert three in {item.trial_id for item in survey_store(store, ALL).chosen}


def test_trials_of_a_sweep_that_cannot_be_planned_here_all_stay(tmp_path, store):
    (old,) = known(tiny(tmp_path), store)
    put(store, old)
    store.sweep("tiny").keep("name: tiny\nbase: {model: resnext}\n", {})
    put(store, "orphan", result=None)
    found = survey_store(store, ALL)
    assert {item.trial_id for item in found.chosen} == {"orphan"}
    assert found.unreadable == ["tiny"]
    (store.root / "sweeps" / "tiny.json").unlink()
    assert survey_store(store, ALL).chosen == []


def test_trials_whose_imported_model_is_not_here_all_stay(tmp_path, store):
    base = {"data": "spheres", "model": "gone_with:model", "train": {"epochs": 1}}
    known(tiny(tmp_path, base=base), store)
    store.sweep("tiny").keep(store.sweep("tiny").file.read_text(), {"before": "its label"})
    put(store, "before")
    found = survey_store(store, ALL)
    assert found.chosen == []
    assert found.unreadable == ["tiny"]


def test_what_a_process_holds_stays(store):
    folder = put(store, "orphan")
    with folder.locked():
        assert survey_store(store, ALL).items == []
    chosen = survey_store(store, ALL).chosen
    assert names(chosen) == [("checkpoints", "orphan"), ("orphans", "orphan")]
    with folder.locked():
        assert remove(store, chosen) == chosen
    assert folder.checkpoint.exists()


def test_what_the_system_refuses_to_delete_is_not_called_deleted(store, monkeypatch):
    folder = put(store, "orphan")
    chosen = survey_store(store, Wish(frozenset({"checkpoints"}))).chosen

    def refused(*_arguments, **_how):
        raise PermissionError("read-only")

    monkeypatch.setattr("pathlib.Path.unlink", refused)
    remaining = remove(store, chosen)
    assert remaining == chosen
    assert folder.checkpoint.exists()
    found = replace(survey_store(store, ALL), chosen=chosen)
    text = survey_text(found, remaining, removed=True)
    assert f"not deleted, since a process uses it or the system refuses: {folder.path}" in text
    assert not text.endswith("\ndeleted")


def test_a_damaged_checkpoint_is_a_leftover(store):
    folder = put(store, "trial", age_s=7200)
    folder.discard(folder.checkpoint)
    assert not {*folder.damaged_files()} & {*folder.files()}
    chosen = survey_store(store, Wish()).chosen
    assert names(chosen) == [("leftovers", "checkpoint.damaged")]
    assert remove(store, chosen) == []
    assert folder.damaged_files() == []


def test_only_what_is_long_unused_goes(store):
    put(store, "new")
    put(store, "old", age_s=10 * 86400)
    chosen = survey_store(store, replace(ALL, unused_days=5)).chosen
    assert {item.trial_id for item in chosen} == {"old"}


def test_a_budget_takes_checkpoints_first_and_of_each_the_least_recently_used(tmp_path, store):
    ids = known(tiny(tmp_path, seeds=[0, 1]), store)
    put(store, ids[0], checkpoint=10 * KB, age_s=100)
    put(store, ids[1], checkpoint=10 * KB, age_s=300)
    put(store, "late", checkpoint=10 * KB, age_s=50)
    put(store, "early", checkpoint=10 * KB, age_s=200)
    size = survey_store(store, Wish()).size_bytes
    both = replace(ALL, budget_bytes=0)
    order = [
        ("checkpoints", ids[1]),
        ("checkpoints", "early"),
        ("checkpoints", ids[0]),
        ("checkpoints", "late"),
        ("orphans", "early"),
        ("orphans", "late"),
    ]
    assert names(survey_store(store, Wish(budget_bytes=0)).chosen) == order[:4]
    assert names(survey_store(store, Wish(budget_bytes=size - 1)).chosen) == order[:1]
    assert names(survey_store(store, both).chosen) == order
    assert names(survey_store(store, Wish(budget_bytes=size - 10 * KB)).chosen) == order[:1]
    assert names(survey_store(store, Wish(budget_bytes=size - 10 * KB - 1)).chosen) == order[:2]
    assert survey_store(store, replace(both, budget_bytes=size)).chosen == []
    only = Wish(frozenset({"orphans"}), budget_bytes=0)
    assert set(names(survey_store(store, only).chosen)) == {t for t in order if t[1] not in ids}
    remove(store, survey_store(store, both).chosen)
    assert set(store.results()) == set(ids)


def test_a_budget_alone_deletes_no_result(tmp_path, store):
    ids = {*known(tiny(tmp_path), store), "orphan"}  # as all are after a change of the numerics
    for trial_id in ids:
        put(store, trial_id)
    found = survey_store(store, Wish(budget_bytes=0))
    assert {item.kind for item in found.chosen} == {"checkpoints"}
    assert remove(store, found.chosen) == []
    assert set(store.results()) == ids
    assert {trial_id for trial_id in ids if store.folder(trial_id).checkpoint.exists()} == set()


@pytest.mark.parametrize(
    ("text", "expected"), [("10GB", 10**10), ("1.5 tb", 1.5e12), ("7", 7), ("2k", 2000)]
)
def test_a_size_is_read_as_people_write_it(text, expected):
    assert bytes_of(text) == expected


def test_what_is_no_size_is_refused():
    with pytest.raises(InputError, match="`lots` is not a size"):
        bytes_of("lots")


@pytest.mark.parametrize(("outcome", "can_go"), [("stopped", True), ("error", False)])
def test_what_a_search_stopped_is_done_and_needs_no_other_trial(tmp_path, store, outcome, can_go):
    """A shorter training's checkpoint stays for what would continue it, which is not `stopped`."""
    base = {**TINY, "data": {**TINY["data"], "val_size": 16}}
    search = {"samples": 1, "space": {"solver.steps": {"choice": [1, 2]}}, "stop": "asha"}
    sweep = tiny(tmp_path, base=base, search=search)
    [trial] = sweep.trials
    known(sweep, store)
    put(store, trial.id, result=replace(RESULT, outcome=outcome), checkpoint=0)
    put(store, "shorter00000", recipe=trial.recipe_id)
    found = names(survey_store(store, ALL).items)
    assert (("checkpoints", "shorter00000") in found) == can_go
