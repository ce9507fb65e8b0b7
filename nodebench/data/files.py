"""Which files a data set consists of: downloaded if missing, and verified. Free of torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from nodebench.errors import DataError
from nodebench.part import Part


@dataclass(frozen=True)
class Files:
    """A data set's files: a folder under the data root, and the MD5 of each file in it."""

    folder: str
    checksums: Mapping[str, str]
    download: Callable[[Path], object]


def _download_mnist(root: Path) -> None:
    from torchvision import datasets

    datasets.MNIST(str(root), download=True)


FILES: dict[str, Files] = {
    # The un-gzipped files, which torchvision leaves and reads.
    "mnist": Files(
        folder="MNIST/raw",
        checksums={
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
        download=_download_mnist,
    ),
}


def prepare(settings: Part, root: Path) -> None:
    """Makes sure that a data set's files, if it has any, are there and whole.

    `settings.checksums`, where given, stand in for the official ones.

    Raises:
        DataError: if files are missing and cannot be downloaded, or are damaged.
    """
    name = str(getattr(settings, "name", ""))
    files = FILES.get(name)
    if files is None:
        return
    folder = root / files.folder
    checksums = getattr(settings, "checksums", None) or files.checksums
    if not all((folder / file).is_file() for file in checksums):
        _download(name, folder, root, files.download)
    for file, expected in checksums.items():
        _verify(folder / file, expected)


def _download(name: str, folder: Path, root: Path, download: Callable[[Path], object]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        download(root)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"`{name}` is not in `{folder}`, and downloading it failed ({error}). Connect this "
            "machine to the internet, or copy the data there, or let NODEBENCH_DATA name the "
            "folder that has it"
        ) from error


def _verify(path: Path, expected: str) -> None:
    if not path.is_file():
        raise DataError(f"`{path}` is missing: copy it there, or delete its folder to download it")
    found = _md5(path, path.stat().st_mtime_ns)
    if found != expected:
        raise DataError(
            f"`{path}` is damaged: its MD5 is {found}, not {expected}. Delete its folder and run "
            "again to download it anew"
        )


@lru_cache
def _md5(path: Path, _modified: int) -> str:
    """Read once per process, unless the file changes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
