"""Image data sets: parsed once per process, subset and split per trial."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from nodebench.data.dataset import Data, Split, balanced
from nodebench.data_settings import Digits, Images, Mnist


def digits(settings: Digits, _seed: int, _root: Path) -> Data:
    """scikit-learn's digits, zero-padded to 16 x 16: inputs [n, 1, 16, 16] in [0, 1].

    The first 1,347 are for training, the last 450, by other writers, for testing.
    """
    return _data(settings, *_digits(), classes=10)


def mnist(settings: Mnist, _seed: int, root: Path) -> Data:
    """MNIST: inputs [n, 1, 28, 28] uint8."""
    train, test = _mnist(root)
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
def _mnist(folder: Path) -> tuple[Split, Split]:
    from torchvision import datasets

    parts = [datasets.MNIST(str(folder), train=train) for train in (True, False)]
    train, test = (Split(part.data.unsqueeze(1), part.targets) for part in parts)
    return train, test
