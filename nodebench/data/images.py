"""Image data sets, parsed once per process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodebench.data import tinyimagenet
from nodebench.data.dataset import Split
from nodebench.data.files import FILES, checksums_of
from nodebench.data.subset import Index, Whole
from nodebench.errors import DataError
from nodebench.spec.data import Digits, Filed, TinyImagenet

DIGIT_NAMES = tuple("0123456789")
Checksums = tuple[tuple[str, str], ...]


def digits(_settings: Digits, _root: Path) -> Whole:
    """scikit-learn's digits, zero-padded to 16 x 16: inputs [n, 1, 16, 16] float32 in [0, 1].

    The first 1,347 are for training, the last 450, by other writers, for testing.
    """
    return _digits()


def official(settings: Filed, root: Path) -> Whole:
    """A data set that torchvision reads: inputs [n, channels, height, width] uint8."""
    return _official(settings.name, root, tuple(sorted(checksums_of(settings).items())))


def tiny_imagenet(settings: TinyImagenet, root: Path) -> Whole:
    """Tiny ImageNet: inputs [n, 3, resolution, resolution] uint8, decoded on demand.

    Normalised by mean and standard deviation over all training pixels, as is common practice.
    """
    listed = tinyimagenet.listing(root / FILES[settings.name].folder)
    return Whole(
        _Jpegs.of(listed.train, settings.resolution),
        _Jpegs.of(listed.test, settings.resolution),
        listed.class_names,
        mean=(0.4802, 0.4481, 0.3975),
        std=(0.2764, 0.2689, 0.2816),
    )


@lru_cache(maxsize=1)
def _digits() -> Whole:
    pixels, targets = map(torch.from_numpy, _digits_of_scikit_learn())
    images = pixels.float().div(16).view(-1, 1, 8, 8)
    every = Split(torch.nn.functional.pad(images, (4, 4, 4, 4)), targets.long())
    return Whole(every[:1347], every[1347:], DIGIT_NAMES)


def _digits_of_scikit_learn() -> tuple[Any, Any]:
    """Pixels [n, 64] from 0 to 16, and classes [n]."""
    # Reads only the file, if it exists: importing scikit-learn takes two seconds in each process.
    package = find_spec("sklearn")
    for folder in (package.submodule_search_locations or ()) if package else ():
        file = Path(folder, "datasets", "data", "digits.csv.gz")
        if file.exists():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits

    found: tuple[Any, Any] = load_digits(return_X_y=True)
    return found


# Two, so that a process that alternates between two data sets does not parse them every time.
@lru_cache(maxsize=2)
def _official(name: str, root: Path, _content: Checksums) -> Whole:
    """The parsed files, cached by their checksums."""
    return READERS[name](root)


def _mnist(root: Path) -> Whole:
    """28 x 28, normalised to [-1, 1] (saparina/neural-ode)."""
    train, test, _ = _idx("MNIST", root)
    return Whole(train, test, DIGIT_NAMES, mean=(0.5,), std=(0.5,))


def _fashion_mnist(root: Path) -> Whole:
    """28 x 28, normalised to [-1, 1], like MNIST."""
    train, test, names = _idx("FashionMNIST", root)
    return Whole(train, test, names, mean=(0.5,), std=(0.5,))


def _cifar10(root: Path) -> Whole:
    """32 x 32, normalised as in saparina/neural-ode: the deviations are means over images."""
    train, test, names = _batches("CIFAR10", root)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    return Whole(train, test, names, mean, std)


def _cifar100(root: Path) -> Whole:
    """32 x 32, normalised over all training pixels, as is common practice."""
    train, test, names = _batches("CIFAR100", root)
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    return Whole(train, test, names, mean, std)


def _svhn(root: Path) -> Whole:
    """32 x 32, normalised over all training pixels, as is common practice. Class 0 is digit 0."""
    from torchvision import datasets

    files = {split: (url, file, None) for split, (url, file, _) in datasets.SVHN.split_list.items()}
    reader = type("SVHN", (datasets.SVHN,), {"split_list": files})
    parts = [reader(str(root / FILES["svhn"].folder), split=split) for split in ("train", "test")]
    train, test = (
        Split(_tensor(part.data), torch.from_numpy(part.labels).reshape(-1)) for part in parts
    )
    mean, std = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)
    return Whole(train, test, DIGIT_NAMES, mean, std)


READERS: dict[str, Callable[[Path], Whole]] = {
    "mnist": _mnist,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "svhn": _svhn,
}


# `prepare` has just verified the files, perhaps against the user's checksums. So torchvision's
# readers do not verify them again, and MNIST's does not look for an unverified older format.


def _idx(kind: str, root: Path) -> tuple[Split, Split, tuple[str, ...]]:
    from torchvision import datasets

    # The class's name is also the folder's.
    reader = type(kind, (getattr(datasets, kind),), {"_check_legacy_exist": lambda _self: False})
    parts = [reader(str(root), train=train) for train in (True, False)]
    train, test = (Split(part.data.unsqueeze(1), part.targets) for part in parts)
    return train, test, tuple(parts[0].classes)


def _batches(kind: str, root: Path) -> tuple[Split, Split, tuple[str, ...]]:
    from torchvision import datasets

    known = getattr(datasets, kind)
    unverified: dict[str, Any] = {
        "train_list": [(file, None) for file, _ in known.train_list],
        "test_list": [(file, None) for file, _ in known.test_list],
        "meta": known.meta | {"md5": None},
    }
    reader = type(kind, (known,), unverified)
    parts = [reader(str(root), train=train) for train in (True, False)]
    train, test = (
        Split(_tensor(part.data.transpose(0, 3, 1, 2)), torch.tensor(part.targets))
        for part in parts
    )
    return train, test, tuple(parts[0].classes)


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


@dataclass(frozen=True)
class _Jpegs:
    """Images that are decoded only when they are needed."""

    paths: tuple[str, ...]
    targets: Tensor
    resolution: int

    @classmethod
    def of(cls, images: Iterable[tuple[Path, int]], resolution: int) -> _Jpegs:
        paths, targets = zip(*images, strict=True)
        return cls(tuple(map(str, paths)), torch.tensor(targets), resolution)

    def __getitem__(self, index: Index) -> Split:
        chosen = torch.arange(len(self.paths))[index].tolist()
        pixels = _decoded(tuple(self.paths[i] for i in chosen), self.resolution)
        return Split(pixels, self.targets[index])


# Three: the training, test and validation images of one trial, for reuse by the next one.
@lru_cache(maxsize=3)
def _decoded(paths: tuple[str, ...], resolution: int) -> Tensor:
    """[n, 3, resolution, resolution] uint8; grey images get three equal channels."""
    pixels = torch.empty(len(paths), 3, resolution, resolution, dtype=torch.uint8)
    for place, path in enumerate(paths):
        pixels[place] = torch.from_numpy(_pixels(path, resolution)).permute(2, 0, 1)
    return pixels


def _pixels(path: str, resolution: int) -> Any:
    """[resolution, resolution, 3] uint8, resized bilinearly with antialiasing."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except OSError as error:
        raise DataError(
            f"`{path}` is no whole JPEG ({error}). Delete the data set's folder and run "
            "`nodebench data tiny-imagenet` to download it anew"
        ) from error
    if image.size != (resolution, resolution):
        image = image.resize((resolution, resolution), Image.Resampling.BILINEAR)
    return np.array(image)
