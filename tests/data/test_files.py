from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision import datasets

from nodebench.data import download, files, tinyimagenet
from nodebench.data.files import FILES, prepare
from nodebench.errors import DataError
from nodebench.spec.data import DATASETS
from tests.support.fake_datasets import WRITERS, images, jpeg, loaded

FILED = sorted(FILES)


def path_of(root: Path, name: str, file: str) -> Path:
    return root / FILES[name].folder / file


@pytest.mark.parametrize("name", FILED)
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    settings = WRITERS[name](tmp_path)
    file = list(settings["checksums"])[-1]
    path = path_of(tmp_path, name, file)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match="damaged") as caught:
        loaded(tmp_path, name=name, **settings)
    assert str(path) in str(caught.value)
    assert settings["checksums"][file] in str(caught.value)


@pytest.mark.parametrize("name", FILED)
def test_files_that_are_not_the_official_ones_are_refused_without_checksums(
    name: str, tmp_path: Path
) -> None:
    WRITERS[name](tmp_path)
    with pytest.raises(DataError, match=r"damaged|incomplete"):
        loaded(tmp_path, name=name)


def test_a_file_is_verified_again_when_it_changes(tmp_path: Path) -> None:
    settings = WRITERS["mnist"](tmp_path)
    loaded(tmp_path, name="mnist", **settings)
    path_of(tmp_path, "mnist", "train-labels-idx1-ubyte").write_bytes(b"no labels")
    with pytest.raises(DataError, match="damaged"):
        loaded(tmp_path, name="mnist", **settings)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100", "svhn"])
def test_our_checksums_are_torchvisions(name: str) -> None:
    kinds = {
        "mnist": datasets.MNIST,
        "fashion-mnist": datasets.FashionMNIST,
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
        "svhn": datasets.SVHN,
    }
    kind, ours = kinds[name], dict(FILES[name].checksums)
    if name == "svhn":
        theirs = {file: md5 for _, file, md5 in kind.split_list.values() if "extra" not in file}
    elif name.startswith("cifar"):
        theirs = dict(kind.train_list + kind.test_list)
        theirs[kind.meta["filename"]] = kind.meta["md5"]
    else:
        theirs = dict(kind.resources)
    if name == "mnist":  # ours are of the un-gzipped files
        assert {f"{file}.gz" for file in ours} == set(theirs)
    else:
        assert ours == theirs


@pytest.mark.parametrize("name", sorted(set(FILED) - {"agnews-small"}))
@pytest.mark.parametrize("error", [URLError("no network"), RuntimeError("Error\ndownloading")])
def test_missing_files_without_network_say_what_to_do(
    name: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_root: Path) -> None:
        raise error

    monkeypatch.setitem(FILES, name, dataclasses.replace(FILES[name], download=fail))
    with pytest.raises(DataError, match="NODEBENCH_DATA") as caught:
        loaded(tmp_path / "data", name=name)
    assert str(tmp_path / "data" / FILES[name].folder) in str(caught.value)
    assert " ".join(str(error).split()) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(FILED) - {"agnews-small"}))
def test_nothing_is_downloaded_into_a_folder_that_is_marked_read_only(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []
    monkeypatch.setitem(FILES, name, dataclasses.replace(FILES[name], download=calls.append))
    (tmp_path / "data").mkdir(mode=0o555)
    with pytest.raises(DataError, match="is read-only"):
        loaded(tmp_path / "data", name=name)
    assert calls == []


def test_a_data_set_that_cannot_be_downloaded_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has none of its files in .* cannot be downloaded"):
        loaded(tmp_path, name="agnews-small")


def test_some_missing_files_are_named(tmp_path: Path) -> None:
    settings = DATASETS["agnews-small"](name="agnews-small", **WRITERS["agnews-small"](tmp_path))
    assert files.missing(settings, tmp_path) is None
    path_of(tmp_path, "agnews-small", "test.csv").unlink()
    assert "lacks test.csv in" in str(files.missing(settings, tmp_path))


def test_data_sets_are_distinct_by_their_settings() -> None:
    digits, cut = (DATASETS["digits"](name="digits", **more) for more in ({}, {"train_size": 9}))
    again = digits.model_copy()
    assert files.distinct([digits, digits, cut, again]) == [digits, cut]


def test_missing_files_are_downloaded_once_and_print_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = WRITERS["mnist"](tmp_path / "elsewhere")
    calls: list[Path] = []

    def fetch(root: Path) -> None:
        sys.stdout.write("Failed download. Trying https -> http instead.")
        calls.append(root)
        shutil.copytree(tmp_path / "elsewhere" / "MNIST", root / "MNIST")

    monkeypatch.setitem(FILES, "mnist", dataclasses.replace(FILES["mnist"], download=fetch))
    for _ in range(2):
        assert len(loaded(tmp_path / "data", name="mnist", **settings).train) == 60
    assert calls == [tmp_path / "data"]
    assert capsys.readouterr().out == ""


def test_a_download_that_leaves_a_file_out_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = WRITERS["mnist"](tmp_path)
    missing = path_of(tmp_path, "mnist", "t10k-labels-idx1-ubyte")
    missing.unlink()
    idle = dataclasses.replace(FILES["mnist"], download=lambda _root: None)
    monkeypatch.setitem(FILES, "mnist", idle)
    with pytest.raises(DataError, match="missing") as caught:
        loaded(tmp_path, name="mnist", **settings)
    assert str(missing) in str(caught.value)


def test_checksums_that_leave_a_file_out_are_refused(tmp_path: Path) -> None:
    checksums = WRITERS["cifar10"](tmp_path)["checksums"]
    del checksums["batches.meta"]
    with pytest.raises(DataError, match=r"`checksums` of `cifar10` leave out `batches.meta`"):
        loaded(tmp_path, name="cifar10", checksums=checksums)


def test_files_replaced_by_other_verified_ones_are_read_anew(tmp_path: Path) -> None:
    for size in (30, 50):
        settings = WRITERS["cifar10"](tmp_path, train=size)
        assert len(loaded(tmp_path, name="cifar10", **settings).train) == size


# ----------------------------------------------------------------------------------- download


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    """The address of `tmp_path` as a server on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_ag_news_is_fetched_into_torchtexts_folder(
    tmp_path: Path, website: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = WRITERS["agnews"](tmp_path)
    monkeypatch.setattr(download, "AG_NEWS", f"{website}{FILES['agnews'].folder}/")
    assert len(loaded(tmp_path / "data", name="agnews", **settings).train) == 60
    assert path_of(tmp_path / "data", "agnews", "train.csv").is_file()
    path_of(tmp_path, "agnews", "test.csv").unlink()
    with pytest.raises(DataError, match=r"the download failed.*The cause: HTTP Error 404"):
        loaded(tmp_path / "other", name="agnews", **settings)


def test_tiny_imagenet_is_fetched_as_an_archive_that_is_verified(
    tmp_path: Path, website: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = WRITERS["tiny-imagenet"](tmp_path)
    archive = shutil.make_archive(
        str(tmp_path / "tiny-imagenet-200"), "zip", tmp_path, "tiny-imagenet-200"
    )
    monkeypatch.setattr(download, "TINY_IMAGENET", f"{website}tiny-imagenet-200.zip")
    with pytest.raises(DataError, match="the download failed"):
        loaded(tmp_path / "data", name="tiny-imagenet", **settings)
    md5 = hashlib.md5(Path(archive).read_bytes()).hexdigest()
    monkeypatch.setattr(download, "TINY_IMAGENET_MD5", md5)
    assert len(loaded(tmp_path / "data", name="tiny-imagenet", **settings).train) == 60
    assert os.listdir(tmp_path / "data") == ["tiny-imagenet-200"]


# --------------------------------------------------------------------------------------- gzip


def test_what_is_read_is_what_the_verified_gz_file_holds(tmp_path: Path) -> None:
    settings = {"name": "fashion-mnist", **WRITERS["fashion-mnist"](tmp_path)}
    raw = path_of(tmp_path, "fashion-mnist", "train-images-idx3-ubyte")
    content = gzip.decompress(raw.with_name(f"{raw.name}.gz").read_bytes())
    assert not raw.exists()
    for wrong in (None, content[:-1] + bytes([content[-1] ^ 1]), content + b"\x00"):
        if wrong is not None:
            raw.write_bytes(wrong)
        data = loaded(tmp_path, **settings)
        assert raw.read_bytes() == content
        assert torch.equal(data.train.inputs[:, 0], torch.from_numpy(images("train", 60, 28, 28)))


def test_un_gzipped_files_that_are_right_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"name": "fashion-mnist", **WRITERS["fashion-mnist"](tmp_path)}
    loaded(tmp_path, **settings)

    folder = tmp_path / FILES["fashion-mnist"].folder
    folder.chmod(0o555)
    monkeypatch.setattr(files, "write", None)
    assert len(loaded(tmp_path, **settings).train) == 60
    folder.chmod(0o755)
    path_of(tmp_path, "fashion-mnist", "t10k-labels-idx1-ubyte").unlink()
    folder.chmod(0o555)
    with pytest.raises(DataError, match=r"is read-only.*gunzip"):
        loaded(tmp_path, **settings)
    folder.chmod(0o755)


# ------------------------------------------------------------------------------ Tiny ImageNet


def test_tiny_imagenet_is_whole_when_its_counts_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS["tiny-imagenet"](tmp_path, train=60, test=40)
    for name, value in (("CLASSES", 10), ("TRAIN_PER_CLASS", 6), ("TEST", 40)):
        monkeypatch.setattr(tinyimagenet, name, value)
    settings = DATASETS["tiny-imagenet"](name="tiny-imagenet")
    folder = prepare(settings, tmp_path)
    assert folder == tmp_path / "tiny-imagenet-200"
    lost = folder / "val" / "images" / "val_7.JPEG"
    lost.rename(folder / "val_7.JPEG")
    with pytest.raises(DataError, match="60 training images in 10 classes and 39 validation"):
        prepare(settings, tmp_path)
    (folder / "val_7.JPEG").rename(lost)
    next((folder / "train").glob("*/images/*.JPEG")).unlink()
    with pytest.raises(DataError, match="59 training images"):
        prepare(settings, tmp_path)


def test_a_folder_that_is_not_tiny_imagenet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tiny-imagenet-200").mkdir()
    with pytest.raises(DataError, match=r"not Tiny ImageNet .*wnids.txt"):
        loaded(tmp_path, name="tiny-imagenet")


def test_a_truncated_jpeg_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["tiny-imagenet"](tmp_path)
    for name, value in (("CLASSES", 10), ("TRAIN_PER_CLASS", 6), ("TEST", 40)):
        monkeypatch.setattr(tinyimagenet, name, value)
    broken = path_of(tmp_path, "tiny-imagenet", "val/images/val_3.JPEG")
    whole = jpeg(images("test", 64, 64, 3))
    for content in (whole[: len(whole) // 2], b"no JPEG", b""):
        broken.write_bytes(content)
        os.utime(broken)
        with pytest.raises(DataError, match="no whole JPEG") as caught:
            loaded(tmp_path, name="tiny-imagenet")
        assert str(broken) in str(caught.value)
