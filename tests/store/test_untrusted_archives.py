"""An archive that is hostile, damaged or foreign is refused whole."""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import pytest

from nodebench import api
from nodebench.errors import StoreError
from nodebench.store import Store
from nodebench.store.archive import MANIFEST
from tests.support.archives import RESULT, exported, names


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
    assert store.trial_ids() == set()
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
    changed(file, name, text.replace(b"0.", b"9.", 1))
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
    ("changes", "why"),
    [
        ({"code": 5}, "is damaged or from another release"),
        ({"code": {"mine": 5}}, "is damaged or from another release"),
        ({"weights": 5}, "is damaged or from another release"),
        ({"spec": {"data": "digits", "model": "mine:Net"}}, "is not what its id says"),
    ],
)
def test_a_trial_whose_record_of_code_or_weights_is_wrong_is_refused(changes, why, tmp_path):
    file = exported(tmp_path / "a")
    name = next(name for name in names(file) if name.endswith("trial.json"))
    with zipfile.ZipFile(file) as archive:
        record = json.loads(archive.read(name))
    rewritten(file, name, json.dumps(record | changes).encode())
    assert why in refusal(file, Store(tmp_path / "b" / "runs"))


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
