"""Image data sets: parsed once per process, subset and split per trial."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from nodebench.data.dataset import Data, Split, balanced
from nodebench.errors import DataError
from nodebench.vocabulary import Digits, Images, Mnist

# MD5 of the un-gzipped files, which the un-gzipped official release has.
MNIST_FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def digits(settings: Digits, _seed: int, _root: Path) -> Data:
    """scikit-learn's digits, zero-padded to 16 x 16: inputs [n, 1, 16, 16] in [0, 1].

    The first 1,347 are for training, the last 450, by other writers, for testing.
    """
    return _data(settings, *_digits(), classes=10)


def mnist(settings: Mnist, _seed: int, root: Path) -> Data:
    """MNIST: inputs [n, 1, 28, 28] uint8.

    Raises:
        DataError: if it can neither be found under `root` nor downloaded, or is damaged.
    """
    checksums = settings.checksums or MNIST_FILES
    train, test = _mnist(root, tuple(sorted(checksums.items())))
    return _data(settings, train, test, classes=10, mean=(0.5,), std=(0.5,))


def _data(
    settings: Images,
    train: Split,
    test: Split,
    classes: int,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
) -> Data:
    """The subsets and the validation split that the settings ask for."""
    seed = settings.subset_seed
    validation = None
    if settings.val_size:
        held_out = balanced(train.targets, settings.val_size, seed)
        validation, train = train[held_out], train[_others(held_out, len(train))]
    if settings.train_size:
        train = train[balanced(train.targets, settings.train_size, seed)]
    if settings.test_size:
        test = test[balanced(test.targets, settings.test_size, seed)]
    if not settings.normalize:
        mean = std = ()
    return Data(train, test, validation, classes, mean, std, settings.augment)


def _others(chosen: Tensor, count: int) -> Tensor:
    mask = torch.ones(count, dtype=torch.bool)
    mask[chosen] = False
    return mask.nonzero().squeeze(1)


@lru_cache(maxsize=1)
def _digits() -> tuple[Split, Split]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().div(16).unsqueeze(1)
    whole = Split(torch.nn.functional.pad(images, (4, 4, 4, 4)), torch.from_numpy(bunch.target))
    return whole[torch.arange(1347)], whole[torch.arange(1347, 1797)]


@lru_cache(maxsize=1)
def _mnist(root: Path, checksums: tuple[tuple[str, str], ...]) -> tuple[Split, Split]:
    from torchvision import datasets

    folder = root / "MNIST" / "raw"
    if not all((folder / name).is_file() for name, _ in checksums):
        _download("mnist", folder, lambda: datasets.MNIST(str(root), download=True))
    verify(folder, dict(checksums))
    parts = [datasets.MNIST(str(root), train=train) for train in (True, False)]
    train, test = (Split(part.data.unsqueeze(1), part.targets) for part in parts)
    return train, test


def _download(name: str, folder: Path, download: object) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        download()  # type: ignore[operator]
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"`{name}` is not in `{folder}`, and downloading it failed ({error}). Connect this "
            "machine to the internet, or copy the data there, or let NODEBENCH_DATA name the "
            "folder that has it"
        ) from error


def verify(folder: Path, checksums: Mapping[str, str]) -> None:
    """Compares files with their MD5.

    Raises:
        DataError: naming the first file that is missing or differs.
    """
    for name, expected in checksums.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"`{path}` is missing: copy it there, or delete `{folder}` to download")
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if found != expected:
            raise DataError(
                f"`{path}` is damaged: its MD5 is {found}, not {expected}. Delete `{folder}` and "
                "run again to download it anew"
            )
