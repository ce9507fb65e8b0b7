"""A whole data set, and the part of it that a trial sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nodebench.data.dataset import Data, Split, balanced
from nodebench.errors import DataError
from nodebench.spec.data import Images, Labeled

Index = Tensor | slice
ALL = slice(None)


class SampleSource(Protocol):
    """The source of a split: targets [n] in memory, inputs in memory or read on demand."""

    @property
    def targets(self) -> Tensor:
        """The class of every sample, int64."""

    def __getitem__(self, index: Index) -> Split:
        """The samples at these indices."""


@dataclass(frozen=True)
class Whole:
    """A complete data set, the same for every trial; the other fields are those of `Data`."""

    train: SampleSource
    test: SampleSource
    class_names: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    symbols: int | None = None


def subset(settings: Labeled, whole: Whole) -> Data:
    """The samples that the settings ask for; validation samples are taken out of training.

    Raises:
        DataError: if there are fewer samples than are asked for.
    """
    targets, tested = whole.train.targets, whole.test.targets
    misfit = settings.misfit(len(targets), len(tested))
    if misfit:
        raise DataError(f"`{settings.name}`: {misfit}. Ask for fewer")
    seed = settings.subset_seed
    kept, held_out = _held_out(targets, settings.val_size, seed)
    if settings.train_size:
        among = balanced(targets[kept], settings.train_size, seed)
        kept = torch.arange(len(targets))[kept][among]
    test = balanced(tested, settings.test_size, seed) if settings.test_size else ALL
    is_scaled = isinstance(settings, Images) and settings.normalize
    return Data(
        train=whole.train[kept],
        test=whole.test[test],
        validation=None if held_out is None else whole.train[held_out],
        classes=len(whole.class_names),
        mean=whole.mean if is_scaled else (),
        std=whole.std if is_scaled else (),
        augment=settings.augment if isinstance(settings, Images) else (),
        symbols=whole.symbols,
        class_names=whole.class_names,
    )


def _held_out(targets: Tensor, size: int, seed: int) -> tuple[Index, Tensor | None]:
    """The indices of the remaining training samples, and of the validation samples."""
    if not size:
        return ALL, None
    chosen = balanced(targets, size, seed)
    mask = torch.ones(len(targets), dtype=torch.bool)
    mask[chosen] = False
    return mask.nonzero().squeeze(1), chosen
