"""The data sets, and what settings each takes. To add one: a class and its row in `DATASETS`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from nodebench.part import Imported, Part
from nodebench.vocabulary import Augmentation, Count, Size


class Dataset(Part):
    """What the rest needs to know of any data set."""

    name: str
    kind: ClassVar[str | None] = None  # what a model must read; None: any
    metric: ClassVar[str] = "accuracy"  # the headline is `test_<metric>`
    higher_is_better: ClassVar[bool] = True


class Images(Dataset):
    """Labelled images.

    `train_size` and `test_size` take a class-balanced subset, and `val_size` holds that many
    training images out for validation. Subset and split depend on `subset_seed` alone, so that
    trials of different seeds see the same images.
    """

    kind = "images"
    sizes: ClassVar[tuple[int, int]]  # train, test

    train_size: Count | None = None
    test_size: Count | None = None
    val_size: Size = 0
    subset_seed: Size = 0
    augment: tuple[Augmentation, ...] = ()
    normalize: bool = True

    @model_validator(mode="after")
    def _sizes_suffice(self) -> Self:
        self._complete(augment=tuple(sorted(set(self.augment))))
        train, test = self.sizes
        if (self.train_size or 0) + self.val_size > train - (self.train_size is None):
            raise ValueError(f"`train_size` and `val_size` share {train} training images")
        if (self.test_size or 0) > test:
            raise ValueError(f"`test_size` is above the {test} test images")
        return self


class Digits(Images):
    """scikit-learn's bundled digits, 8 x 8 in a frame of 16 x 16: 1,347 train, 450 test."""

    sizes = (1347, 450)

    name: Literal["digits"]


class Mnist(Images):
    """MNIST by torchvision: 60,000 / 10,000 images of 28 x 28, normalised to [-1, 1].

    `checksums` are the MD5 of the un-gzipped files; without them, the official ones.
    """

    sizes = (60_000, 10_000)

    name: Literal["mnist"]
    checksums: dict[str, str] | None = None


class Spheres(Dataset):
    """Concentric spheres in `dim` dimensions, drawn from the trial's seed (Ott et al. 2021)."""

    kind = "vectors"

    name: Literal["spheres"]
    dim: Count = 2
    train_size: Count = 2000
    test_size: Count = 1000
    val_size: Size = 0


class CustomData(Imported, Dataset):
    """A user's own function, called with (settings, seed, root), that gives a `Data`."""


DATASETS: dict[str, type[Dataset]] = {"digits": Digits, "mnist": Mnist, "spheres": Spheres}
