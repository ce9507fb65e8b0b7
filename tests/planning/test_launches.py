import shutil

import pytest
import yaml

from nodebench import api
from nodebench.api import merge
from nodebench.errors import StoreError
from nodebench.execution import launch
from nodebench.execution.publishing import Publication
from nodebench.execution.runner import Monitor
from nodebench.planning.garbage import Wish, remove, survey_store
from nodebench.planning.launches import launched_files, remember, require_name
from nodebench.planning.lookup import load_sweep
from nodebench.store import Store
from tests.support.fake_results import finish
from tests.support.tiny_sweeps import TINY

ORPHANS = Wish(frozenset({"orphans", "checkpoints"}))


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Store(tmp_path / "runs")


def file(folder, *, width=4, name="tiny", **fields):
    folder.mkdir(exist_ok=True)
    base = {**TINY, "model": {"name": "plainode", "width": width}}
    path = folder / "x.yaml"
    path.write_text(yaml.safe_dump({"name": name, "base": base, **fields}))
    return path


def run(path, store, *, overrides=(), small=False, **how):
    how = {"inline": True, "track": False, "write_report": False, **how}
    return api.run(load_sweep(path, overrides=overrides, small=small), store, Monitor(), **how)


def test_another_file_of_the_name_of_the_last_launch_needs_a_word(tmp_path, store):
    one, two = file(tmp_path / "a"), file(tmp_path / "b", width=3)
    run(one, store)
    other = load_sweep(two)
    for attempt in (
        lambda: run(two, store),
        lambda: api.sync(other, store),
        lambda: merge(other, store, []),
        lambda: api.write_report(other, store),
        lambda: launch.time_cells(other, store, Monitor(), Publication()),
    ):
        with pytest.raises(StoreError, match="--replace") as caught:
            attempt()
        assert f"last launched from `{one}`" in str(caught.value)
        assert f"`{two}`" in str(caught.value)
    assert store.trial_ids() == {load_sweep(one).trials[0].id}
    assert run(two, store, replace_other=True).complete
    with pytest.raises(StoreError, match="--replace"):
        run(one, store)


def test_trials_of_a_launched_file_that_is_still_there_are_no_orphans(tmp_path, store):
    one, two = file(tmp_path / "a"), file(tmp_path / "b", width=3)
    run(one, store)
    run(two, store, replace_other=True)
    assert [origin.file for _, origin in launched_files(store)] == [str(one), str(two)]
    remove(store, survey_store(store, Wish(frozenset({"orphans"}))).chosen)
    assert len(store.trial_ids()) == 2
    one.write_text("name: tiny\nbase: [")  # as while it is edited
    found = survey_store(store, ORPHANS)
    assert (found.chosen, found.unreadable) == ([], ["tiny"])
    one.unlink()
    assert {item.trial_id for item in survey_store(store, Wish(frozenset({"orphans"}))).chosen} == (
        store.trial_ids() - {load_sweep(two).trials[0].id}
    )


def test_a_file_that_was_moved_renamed_inside_or_copied_needs_no_word(tmp_path, store):
    one = file(tmp_path / "a")
    run(one, store)
    two = file(tmp_path / "b")
    run(two, store)  # the same, word for word
    assert store.sweep("tiny").launches()[-1]["file"] == "a/x.yaml"
    one.unlink()
    two.unlink()
    three = file(tmp_path / "c", seeds=[0, 1])
    run(three, store)
    file(tmp_path / "c", name="other")
    run(file(tmp_path / "d", width=3), store)


def test_a_project_that_was_copied_with_its_store_knows_its_own_files(tmp_path, store):
    run(file(tmp_path / "a"), store)
    copy = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "a", copy / "a")
    shutil.copytree(store.root, copy / "runs")
    assert run(file(copy / "a", seeds=[0, 1]), Store(copy / "runs")).complete


def test_the_same_file_in_other_forms_is_no_other_file(tmp_path, store):
    one = file(tmp_path / "a", small={"seeds": [1]})
    run(one, store)
    run(one, store, overrides=["train.epochs=2"])
    run(one, store, small=True)
    run(one, store, overrides=["name=other", "seeds=[2]"])
    file(tmp_path / "a", seeds=[0, 1], small={"seeds": [1]})
    run(one, store, write_report=True)
    copy = tmp_path / "reports" / "tiny"
    run(copy, store, overrides=["train.epochs=2"])
    run(store.sweep("tiny").file, store, overrides=["train.epochs=2"])
    assert [row["file"] for row in store.sweep("tiny").launches()] == ["a/x.yaml"]
    other = file(tmp_path / "b", name="other", width=3)
    with pytest.raises(StoreError, match="--replace"):
        run(other, store)


def test_a_copy_that_was_edited_in_the_store_is_not_replaced(tmp_path, store):
    sweep = load_sweep(file(tmp_path / "a"))
    remember(sweep, store)
    copy = store.sweep("tiny").file
    copy.write_text("# mine\n" + copy.read_text())
    before = copy.read_text()
    for attempt in (remember, require_name):
        with pytest.raises(StoreError, match="changed since"):
            attempt(sweep, store)
    assert copy.read_text() == before


def test_a_launch_that_was_killed_between_two_files_goes_on(tmp_path, store):
    path = file(tmp_path / "a")
    remember(load_sweep(path), store)
    before = store.sweep("tiny").file.read_text()
    remember(load_sweep(file(tmp_path / "a", seeds=[0, 1])), store)
    store.sweep("tiny").file.write_text(before)  # as if the second file were not written yet
    remember(load_sweep(path), store)
    assert store.sweep("tiny").file.read_text() == load_sweep(path).text


def test_a_report_replaces_nothing_that_no_report_has_written(tmp_path, store):
    sweep = load_sweep(file(tmp_path / "a"))
    figures = tmp_path / "figures"
    figures.mkdir()
    (figures / "mine.svg").write_text("drawn by hand")
    for name in ("README.md", "results.csv"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(StoreError, match=r"`results.csv`, `README.md`, `figures`"):
        api.write_report(sweep, store, tmp_path)
    assert (figures / "mine.svg").exists()
    assert (tmp_path / "README.md").read_text() == "mine"
    finish(sweep, store)
    page = api.write_report(sweep, store)
    (page.parent / "sweep.yaml").unlink()  # as if it were cut off
    page.unlink()
    assert api.write_report(sweep, store).exists()
    page.parent.joinpath("results.csv").write_text("mine")
    with pytest.raises(StoreError, match="nodebench did not write"):
        run(tmp_path / "a" / "x.yaml", store, overrides=["seeds=[0, 1]"], write_report=True)
    assert store.trial_ids() == {sweep.trials[0].id}
