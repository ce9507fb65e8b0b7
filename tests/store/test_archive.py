"""An archive: what goes in comes out, and what is hostile, damaged or foreign is refused whole."""

from __future__ import annotations

import json
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from nodebench import api
from nodebench.errors import StoreError
from nodebench.store import Result, Store
from nodebench.store.archive import MANIFEST
from nodebench.store.merge import merge_store
from tests.support.tiny_sweeps import point, tiny

HERE = {"host": "here", "hardware": "a CPU", "device": "cpu", "threads": 1, "torch": "2.0"}
THERE = {**HERE, "host": "there", "hardware": "another CPU"}
RESULT = Result("finished", "", 3, {"test_accuracy": 0.5, "epoch_s": 2.0}, [HERE], 1.0, 2.0)


def filled(folder, *, environment=HERE, accuracy=0.5, started=1.0, seeds=(0, 1)):
    """A sweep, and a store in which all of it is finished."""
    folder.mkdir(exist_ok=True)
    sweep, store = tiny(folder, seeds=list(seeds)), Store(folder / "runs")
    for trial in sweep.trials:
        trial_folder = store.folder(trial.id)
        trial_folder.create(trial)
        trial_folder.write_history([{"epoch": 1, "time": 1.0, "loss": float("nan")}])
        trial_folder.write_evaluations([point(accuracy, method="euler", steps=2)])
        trial_folder.checkpoint.write_bytes(b"weights")
        trial_folder.write_error("/home/somebody/secret")
        summary = {"test_accuracy": accuracy + trial.spec.seed / 10, "epoch_s": 2.0}
        result = replace(RESULT, summary=summary, environments=[environment], started=started)
        trial_folder.write_result(result)
    return sweep, store


def exported(folder, **how):
    sweep, store = filled(folder)
    return api.export_archive(sweep, store, folder / "a.zip", **how)[0]


def names(file):
    with zipfile.ZipFile(file) as archive:
        return sorted(archive.namelist())


def content(store):
    files = (path for path in store.root.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(store.root)): path.read_bytes() for path in files}


def test_what_is_exported_comes_out_the_same_in_another_store(tmp_path):
    sweep, store = filled(tmp_path / "a")
    file, ids = api.export_archive(sweep, store, tmp_path / "a.zip", weights=True)
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
    one, _ = api.export_archive(sweep, store, tmp_path / "1.zip")
    two, _ = api.export_archive(sweep, store, tmp_path / "2.zip")
    assert one.read_bytes() == two.read_bytes()


def test_trials_without_a_result_and_running_ones_are_left_out(tmp_path):
    sweep, store = filled(tmp_path / "a", seeds=(0, 1, 2))
    first, second, third = (store.folder(trial.id) for trial in sweep.trials)
    first.write_result(replace(RESULT, outcome="error"))
    with second.locked():
        _, ids = api.export_archive(sweep, store, tmp_path / "a.zip")
    assert ids == [third.path.name]


def test_nothing_is_written_where_nothing_is_finished_or_something_else_lies(tmp_path):
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    file = tmp_path / "a.zip"
    with pytest.raises(StoreError, match="no trial has a result yet"):
        api.export_archive(sweep, store, file)
    assert not file.exists()
    file.write_text("mine")
    with pytest.raises(StoreError, match="is not replaced"):
        api.export_archive(sweep, store, file)
    assert file.read_text() == "mine"


def changed(file: Path, name: str, content: bytes, **entry) -> None:
    """Replaces or adds an entry of an archive, without its checksum."""
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(file, "w") as archive:
        for other, text in entries.items():
            if other != name:
                archive.writestr(other, text)
        info = zipfile.ZipInfo(name)
        for field, value in entry.items():
            setattr(info, field, value)
        archive.writestr(info, content)


def rewritten(file: Path, name: str, content: bytes) -> None:
    """The same, with its checksum, as whoever wants to deceive would."""
    import hashlib

    with zipfile.ZipFile(file) as archive:
        manifest = json.loads(archive.read(MANIFEST))
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"][name] = {"bytes": len(content), "sha256": digest}
    changed(file, name, content)
    changed(file, MANIFEST, json.dumps(manifest).encode())


def refusal(file: Path, store: Store) -> str:
    """Why an archive is refused; nothing of it may be in the store then."""
    with pytest.raises(StoreError) as caught:
        api.import_archive(file, store)
    assert store.begun() == set()
    assert not list(store.root.glob(".import-*"))
    assert not store.sweep_records()
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../outside.json",
        "trials/../../outside.json",
        "trials/0123456789ab/../../../outside.json",
        "trials/0123456789ab/lock",
        "trials/0123456789ab/sub/result.json",
        "trials/0123456789ab/",
        "trials/../0123456789ab/result.json",
        "trials/0123456789AB/result.json",
        "trials\\0123456789ab\\result.json",
        "C:\\result.json",
        "sweeps/tiny.yaml",
        "trials/0123456789ab/result.json\x00.txt",
        "trials/0123456789ab/result.json\n",
        "\x1b[2J",
    ],
)
def test_names_that_are_not_of_an_archive_are_refused(name, tmp_path):
    file = exported(tmp_path / "a")
    changed(file, "placeholder", b"{}")
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    entries.pop("placeholder")
    with zipfile.ZipFile(file, "w") as archive:
        for other, text in entries.items():
            archive.writestr(other, text)
        info = zipfile.ZipInfo("x")
        info.filename = info.orig_filename = name
        archive.writestr(info, b"{}")
    message = refusal(file, Store(tmp_path / "b" / "runs"))
    assert "is not the name of a file in an archive" in message
    assert message.isprintable()
    assert not (tmp_path / "outside.json").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_links_and_devices_are_refused(kind, tmp_path):
    file = exported(tmp_path / "a")
    name = next(name for name in names(file) if name.endswith("result.json"))
    changed(file, name, b"/etc/passwd", external_attr=(kind | 0o777) << 16)
    assert "is not a plain file" in refusal(file, Store(tmp_path / "b" / "runs"))


def test_a_file_that_was_changed_is_refused_by_its_checksum(tmp_path):
    file = exported(tmp_path / "a")
    name = next(name for name in names(file) if name.endswith("result.json"))
    with zipfile.ZipFile(file) as archive:
        text = archive.read(name)
    changed(file, name, text.replace(b"0.5", b"0.9"))
    assert "does not have its checksum" in refusal(file, Store(tmp_path / "b" / "runs"))
    changed(file, name, text + b" " * 100)
    assert "does not have its checksum" in refusal(file, Store(tmp_path / "b" / "runs"))


def test_a_file_without_a_checksum_and_a_missing_one_are_refused(tmp_path):
    file = exported(tmp_path / "a")
    changed(file, "trials/0123456789ab/result.json", b"{}")
    assert "has no checksum" in refusal(file, Store(tmp_path / "b" / "runs"))
    file = exported(tmp_path / "c")
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in entries.items():
            if not name.endswith("history.jsonl"):
                archive.writestr(name, text)
    assert "is missing" in refusal(file, Store(tmp_path / "b" / "runs"))


def test_a_name_that_stands_twice_is_refused(tmp_path):
    file = exported(tmp_path / "a")
    name = next(name for name in names(file) if name.endswith("result.json"))
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(name, b"{}")
    assert "stands in it twice" in refusal(file, Store(tmp_path / "b" / "runs"))


def test_a_file_that_says_that_it_is_huge_is_refused_before_it_is_unpacked(tmp_path):
    file = exported(tmp_path / "a")
    with zipfile.ZipFile(file) as archive:
        manifest = json.loads(archive.read(MANIFEST))
    name = next(name for name in manifest["files"] if name.endswith("history.jsonl"))
    manifest["files"][name]["bytes"] = 1 << 40
    changed(file, MANIFEST, json.dumps(manifest).encode())
    assert "1,099,511,627,776 bytes" in refusal(file, Store(tmp_path / "b" / "runs"))


def test_a_file_that_unpacks_to_more_than_it_says_is_cut_off(tmp_path):
    file = exported(tmp_path / "a")
    name = next(name for name in names(file) if name.endswith("history.jsonl"))
    changed(file, name, b"0" * (64 << 20), compress_type=zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 1 << 20
    assert "does not have its checksum" in refusal(file, Store(tmp_path / "b" / "runs"))


@pytest.mark.parametrize(
    ("end", "text", "why"),
    [
        ("result.json", "[", "damaged"),
        ("result.json", '{"outcome": "finished"}', "damaged"),
        ("result.json", json.dumps({**vars(RESULT), "summary": {"a": "b"}}), "summary.a"),
        ("result.json", json.dumps({**vars(RESULT), "more": 1}), "damaged"),
        ("result.json", json.dumps({**vars(RESULT), "reason": "\x1b[2J"}), "control character"),
        ("result.json", "[" * 100_000, "damaged"),
        ("history.jsonl", "3\n", "damaged"),
        ("history.jsonl", '{"epoch": "x"}\n', "damaged"),
        ("evaluations.json", '[{"point": {}}]', "damaged"),
        ("evaluations.json", '[{"point": {"method": "euler"}, "solver": {"method": "x"}}]', "dam"),
        ("trial.json", "{}", "damaged"),
        ("trial.json", "[]", "damaged"),
        ("trial.json", '{"id": "a", "spec": {"model": "nothing"}}', "from another release"),
    ],
)
def test_files_that_hold_something_else_are_refused_though_their_checksum_is_right(
    end, text, why, tmp_path
):
    file = exported(tmp_path / "a")
    name = next(name for name in names(file) if name.endswith(end))
    rewritten(file, name, text.encode())
    message = refusal(file, Store(tmp_path / "b" / "runs"))
    assert why in message
    assert message.isprintable()


def test_a_trial_that_is_not_what_its_id_says_is_refused(tmp_path):
    file = exported(tmp_path / "a")
    name = next(name for name in names(file) if name.endswith("trial.json"))
    with zipfile.ZipFile(file) as archive:
        record = json.loads(archive.read(name))
    record["spec"]["train"]["batch_size"] = 17
    rewritten(file, name, json.dumps(record).encode())
    assert "is not what its id says" in refusal(file, Store(tmp_path / "b" / "runs"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("name: other\n", "should be `tiny`"),
        ("name: tiny\ninclude: /etc/passwd\n", "includes another file"),
        ("name: [\n", "cannot be read here"),
        ("name: tiny\nbase: !!python/object/apply:os.system ['true']\n", "cannot be read here"),
    ],
)
def test_a_sweep_file_that_is_not_an_archive_s_is_refused(text, why, tmp_path):
    file = exported(tmp_path / "a")
    head = "" if "base" in text or "[\n" in text else "base: {data: digits, model: odenet}\n"
    rewritten(file, "sweep.yaml", (text + head).encode())
    assert why in refusal(file, Store(tmp_path / "b" / "runs"))


@pytest.mark.parametrize("cut", [0, 10, 0.5, 0.99])
def test_what_is_not_a_whole_archive_is_refused(cut, tmp_path):
    file = exported(tmp_path / "a")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(cut * len(whole)) if cut < 1 else cut])
    assert "not a whole zip file" in refusal(file, Store(tmp_path / "b" / "runs"))
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("manifest.json", "{}")
    assert "nodebench did not write it" in refusal(file, Store(tmp_path / "b" / "runs"))


def test_an_archive_of_a_newer_form_says_what_to_do(tmp_path):
    file = exported(tmp_path / "a")
    with zipfile.ZipFile(file) as archive:
        manifest = json.loads(archive.read(MANIFEST))
    changed(file, MANIFEST, json.dumps({**manifest, "format": 2, "nodebench": "9.0"}).encode())
    assert "nodebench `9.0` wrote it: update" in refusal(file, Store(tmp_path / "b" / "runs"))


def test_of_a_trial_that_both_have_ours_is_kept_and_theirs_is_kept_beside_it_once(tmp_path):
    sweep, ours = filled(tmp_path / "a")
    _, theirs = filled(tmp_path / "b", environment=THERE, accuracy=0.6, started=7.0)
    file, _ = api.export_archive(sweep, theirs, tmp_path / "b.zip")
    before = ours.results()
    for _ in range(2):
        found = api.import_archive(file, ours)
        assert len(found.merged.conflicts) == 2
        assert ours.results() == before
        for trial in sweep.trials:
            (end,) = ours.folder(trial.id).elsewhere()
            assert end.environments == [THERE]
            assert end.summary["test_accuracy"] == 0.6 + trial.spec.seed / 10
    back, _ = api.export_archive(sweep, ours, tmp_path / "a.zip")
    api.import_archive(back, theirs)  # with their own ends in it, which are not kept twice
    assert [len(theirs.folder(t.id).elsewhere()) for t in sweep.trials] == [1, 1]
    third = Store(tmp_path / "c" / "runs")
    api.import_archive(back, third)
    assert [len(third.folder(t.id).elsewhere()) for t in sweep.trials] == [1, 1]


def test_our_own_export_changes_nothing_here(tmp_path):
    sweep, store = filled(tmp_path / "a")
    file, _ = api.export_archive(sweep, store, tmp_path / "a.zip")
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
    assert len(store.begun()) == 3
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
