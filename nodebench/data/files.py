"""The files of each data set: downloaded if missing, and verified. Does not import torch."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path

from nodebench.data import download, tinyimagenet
from nodebench.errors import DataError, InputError, unknown
from nodebench.files import require_writable, write
from nodebench.spec.data import DATASETS, Dataset
from nodebench.spec.settings import Settings

CHUNK_BYTES = 1 << 20
COPY = "copy the files there, or set NODEBENCH_DATA to the data folder that has them"


@dataclass(frozen=True)
class Files:
    """A data set's files: a folder under the data root, and the MD5 of each file in it.

    `download` takes the data root, and is None if the files cannot be downloaded. `check` takes the
    folder, and replaces checksums if there are too many files for them.
    """

    folder: str
    checksums: Mapping[str, str]
    download: Callable[[Path], object] | None
    check: Callable[[Path], None] | None = None
    otherwise: str = ""
    """An alternative to suggest if the files cannot be obtained."""


FILES: dict[str, Files] = {
    # The un-gzipped files, which torchvision keeps and reads.
    "mnist": Files(
        folder="MNIST/raw",
        checksums={
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
        download=download.fetch_mnist,
    ),
    # MD5 checksums are known only for the .gz files.
    "fashion-mnist": Files(
        folder="FashionMNIST/raw",
        checksums={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        download=download.fetch_fashion_mnist,
    ),
    "cifar10": Files(
        folder="cifar-10-batches-py",
        checksums={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
            "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        },
        download=download.fetch_cifar10,
    ),
    "cifar100": Files(
        folder="cifar-100-python",
        checksums={
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48",
        },
        download=download.fetch_cifar100,
    ),
    "svhn": Files(
        folder="SVHN",
        checksums={
            "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        },
        download=download.fetch_svhn,
    ),
    "tiny-imagenet": Files(
        folder="tiny-imagenet-200",
        checksums={},
        download=download.fetch_tiny_imagenet,
        check=tinyimagenet.check,
    ),
    "agnews": Files(
        folder="datasets/AG_NEWS",
        checksums={
            "train.csv": "b1a00f826fdfbd249f79597b59e1dc12",
            "test.csv": "d52ea96a97a2d943681189a97654912d",
        },
        download=download.fetch_agnews,
        otherwise=", or take the small set instead: `--set data.name=agnews-small`",
    ),
    "agnews-small": Files(
        folder="datasets/AG_NEWS_SMALL",
        checksums={
            "train.csv": "a5617d7b7d9080f06f1c0804ea7adf2e",
            "test.csv": "9c1e99c036061cea55275f34ffd14d6e",
        },
        download=None,
    ),
}


def prepare(settings: Settings, root: Path) -> Path | None:
    """Makes sure that a data set's files, if it has any, are present and intact.

    `settings.checksums`, if given, replace the official ones. Returns the folder.

    Raises:
        DataError: if files are missing and cannot be downloaded, or are damaged.
    """
    name = str(getattr(settings, "name", ""))
    files = FILES.get(name)
    if files is None:
        return None
    folder = root / files.folder
    checksums = checksums_of(settings)
    _name_the_same_files(name, checksums, files.checksums)
    if lacking := missing(settings, root):
        _fetch(lacking, files, folder, root)
    for file, expected in checksums.items():
        _verify(folder / file, expected, can_be_fetched=files.download is not None)
    for file in checksums:
        if file.endswith(".gz"):
            _unpack(folder / file)
    if files.check and not checksums:
        files.check(folder)
    return folder


def missing(settings: Settings, root: Path) -> str | None:
    """A message that names a data set's missing files; None if none are missing."""
    name = str(getattr(settings, "name", ""))
    if name not in FILES:
        return None
    folder, checksums = root / FILES[name].folder, checksums_of(settings)
    lacking = [file for file in checksums if not (folder / file).is_file()]
    if folder.is_dir() and not lacking:
        return None
    if len(lacking) == len(checksums):
        return f"`{name}` has none of its files in `{folder}`"
    return f"`{name}` lacks {', '.join(lacking)} in `{folder}`"


def distinct(data_sets: Iterable[Settings]) -> list[Settings]:
    """The data sets without duplicates. The seeds of a configuration share one object."""
    objects = {id(each): each for each in data_sets}
    return list({each.model_dump_json(): each for each in objects.values()}.values())


def remedy(settings: Settings) -> str:
    """Advice on what to do about a data set's missing files."""
    name = str(getattr(settings, "name", ""))
    if FILES[name].download is None:
        return COPY
    return f"the first run downloads them; `nodebench data {name}` downloads them now"


def checksums_of(settings: Settings) -> Mapping[str, str]:
    """The MD5 of a data set's files, by path in its folder: the user's, else the official ones."""
    return getattr(settings, "checksums", None) or FILES[getattr(settings, "name", "")].checksums


def _name_the_same_files(
    name: str, checksums: Mapping[str, str], official: Mapping[str, str]
) -> None:
    """Rejects checksums that leave out a file, which would be read unverified."""
    left_out = [
        file
        for file in official
        if file not in checksums and file.removesuffix(".gz") not in checksums
    ]
    if left_out:
        raise DataError(
            f"the `checksums` of `{name}` leave out `{'`, `'.join(left_out)}`: give all "
            f"of {', '.join(official)}, or none for the official files"
        )


def _fetch(lacking: str, files: Files, folder: Path, root: Path) -> None:
    to_do = COPY + files.otherwise
    if files.download is None:
        raise DataError(f"{lacking}, and this data set cannot be downloaded: {to_do}")
    try:
        require_writable(root)
        require_writable(folder)
        root.mkdir(parents=True, exist_ok=True)
        # Torchvision's output does not belong to the command's output.
        with contextlib.redirect_stdout(sys.stderr):
            files.download(root)
    except (OSError, RuntimeError, HTTPException) as error:
        raise DataError(
            f"{lacking}, and the download failed: connect this machine to the internet, {to_do}. "
            f"The cause: {' '.join(str(error).split())}"
        ) from error


def _verify(path: Path, expected: str, *, can_be_fetched: bool) -> None:
    if not path.is_file():
        raise DataError(f"`{path}` is missing: copy it there, or delete its folder to download it")
    found = _md5(path, path.stat().st_mtime_ns)
    if found != expected:
        cure = "run again to download it anew" if can_be_fetched else "copy the real one there"
        raise DataError(
            f"`{path}` is damaged: its MD5 is {found}, not {expected}. Delete it and {cure}"
        )


def _unpack(packed: Path) -> None:
    """Un-gzips a verified file, unless the file next to it is already the result.

    A .gz ends with its content's CRC-32 and length, against which the file next to it is checked.
    """
    path = packed.with_suffix("")
    with packed.open("rb") as file:
        file.seek(-8, 2)
        crc, length = (int.from_bytes(file.read(4), "little") for _ in range(2))
    if path.is_file():
        status = path.stat()
        if status.st_size == length and _crc(path, status.st_mtime_ns) == crc:
            return
    try:
        require_writable(path.parent)
        write(path, gzip.decompress(packed.read_bytes()))
    except OSError as error:
        raise DataError(
            f"`{path}` is missing or is not what `{packed.name}` holds, and un-gzipping that "
            f"failed ({error}). Run `gunzip --keep --force {packed}`"
        ) from error


@lru_cache
def _md5(path: Path, _modified: int) -> str:
    """A file's MD5, computed once per process unless the file changes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


@lru_cache
def _crc(path: Path, _modified: int) -> int:
    """A file's CRC-32, computed once per process unless the file changes."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return crc


def data_sets(names: Sequence[str]) -> list[Dataset]:
    """The specs of the named data sets, with default settings.

    Raises:
        InputError: if some names are unknown; it lists them.
    """
    wrong = [unknown(name, "data set", DATASETS) for name in names if name not in DATASETS]
    if wrong:
        raise InputError("\n".join(wrong))
    return [DATASETS[name](name=name) for name in dict.fromkeys(names)]
