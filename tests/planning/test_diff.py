import pytest

from nodebench.cli.text import change_text
from nodebench.errors import StoreError
from nodebench.files import read_json
from nodebench.planning.diff import change, inputs, nearest
from nodebench.planning.lookup import find
from nodebench.store import Result, Store, trial_folder
from tests.support.tiny_sweeps import TINY, tiny

FINISHED = Result("finished", "", 3, {}, [], 0.0, 1.0)


def finish(store, trial):
    store.folder(trial.id).create(trial)
    store.folder(trial.id).write_result(FINISHED)


def test_the_nearest_relative_is_the_finished_one_that_shares_most(tmp_path):
    grid = {"solver.steps": [2, 3], "train.epochs": [3, 4]}
    sweep, store = tiny(tmp_path, grid=grid), Store(tmp_path / "runs")
    new, nearer, _, other = sweep.trials
    assert nearest(new, store) is None
    for trial in (new, other, nearer):
        finish(store, trial)
    found, apart = nearest(new, store)
    assert found == nearer.id
    assert [str(difference) for difference in apart] == ["train.epochs: `3` here, `4` there"]


def test_an_id_is_made_of_all_settings_and_the_numerics(tmp_path):
    trial = tiny(tmp_path).trials[0]
    found = inputs(trial)
    assert found["solver.steps"] == 2
    assert found["seed"] == 0
    assert "numerics" in found


def test_a_trial_is_found_by_the_start_of_its_id(tmp_path):
    sweep, store = tiny(tmp_path, seeds=[0, 1]), Store(tmp_path / "runs")
    trial = sweep.trials[1]
    assert find(trial.id[:6], store, sweep) == trial
    with pytest.raises(StoreError, match="no trial starts with"):
        find(trial.id, store, None)
    finish(store, trial)
    assert find(trial.id[:6], store, None).id == trial.id
    with pytest.raises(StoreError, match="several trials start with"):
        find("", store, sweep)


def test_finding_a_trial_in_the_store_reads_its_record_once(tmp_path, monkeypatch):
    trial, store, read = tiny(tmp_path).trials[0], Store(tmp_path / "runs"), []
    finish(store, trial)

    def counted(path, default):
        read.append(path.name)
        return read_json(path, default)

    monkeypatch.setattr(trial_folder, "read_json", counted)
    assert find(trial.id, store, None) == trial
    assert read == ["trial.json"]


def test_a_change_of_the_file_is_told_by_trials_and_by_fields(tmp_path):
    old = tiny(tmp_path, seeds=[0, 1])
    new = tiny(
        tmp_path,
        seeds=[1],
        base={**TINY, "solver": {"method": "euler", "steps": 2}},
        grid={"solver.steps": [2, 5]},
        limits={"nfe": 9},
    )
    found = change(old, new)
    assert (found.same, list(found.gone), found.fields) == (1, [old.trials[0].id], ["limits"])
    [(trial, (label, apart))] = found.new.items()
    assert trial == new.trials[1].id
    assert label == new.label(new.trials[1])
    assert [each.path for each in apart] == ["solver.steps", "seed"]


def test_a_new_trial_is_compared_with_the_most_similar_one_that_is_gone(tmp_path):
    old = tiny(tmp_path, grid={"train.epochs": [2, 8], "model.width": [4, 8]})
    new = tiny(tmp_path, grid={"train.epochs": [2, 5], "model.width": [4, 8]})
    found = change(old, new)
    assert (found.same, len(found.gone)) == (2, 2)
    for _, apart in found.new.values():  # `epochs: 2` stays, so no trial of it has become another
        assert [each.as_change for each in apart] == ["train.epochs: `8` -> `5`"]
    text = change_text(found).splitlines()
    assert text[0] == "2 trials unchanged, 2 new, 2 removed"
    assert text[1] == "+ 2 trials  (train.epochs: `8` -> `5`)"
    assert [line[0] for line in text[2:]] == ["-", "-"]


def test_new_trials_are_listed_by_their_labels_if_none_is_gone(tmp_path):
    old = tiny(tmp_path, grid={"solver.steps": [2]})
    new = tiny(tmp_path, grid={"solver.steps": list(range(2, 12))})
    found = change(old, new)
    assert all(apart == [] for _, apart in found.new.values())
    first, *listed, last = change_text(found).splitlines()
    assert first == "1 trial unchanged, 9 new, 0 removed"
    assert listed == [f"+ {trial.id}  {new.label(trial)}" for trial in new.trials[1:7]]
    assert last == "+ and 3 more"
