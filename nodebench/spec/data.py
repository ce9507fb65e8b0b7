"""The data sets and their settings. To add one, add a class and its row in `DATASETS`."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from nodebench.spec.settings import ImportedSettings, Settings
from nodebench.spec.vocabulary import (
    A_NUMBER,
    MOST_SAMPLES,
    Augmentation,
    Flag,
    HeldOut,
    NonNegative,
    Positive,
    Samples,
    Size,
    Steps,
    Time,
    Width,
)

TEXT_LENGTH = 1014
"""The number of characters that are kept from a text (Zhang, Zhao, LeCun 2015)."""

LARGEST_RESOLUTION = 512
"""Beyond it, the images of Tiny ImageNet, all in memory, would take more than 80 GB."""


class Dataset(Settings):
    """The properties that every data set has."""

    name: str
    kind: ClassVar[str | None] = None  # the kind of data that a model must read; None: any
    metric: ClassVar[str] = "accuracy"  # the headline is `test_<metric>`
    higher_is_better: ClassVar[bool] = True
    origin: ClassVar[str] = "files"  # where the samples come from, in words

    @property
    def headline(self) -> str:
        """The metric in a trial's summary by which the trial is judged."""
        return f"test_{self.metric}"

    @property
    def test_samples(self) -> int | None:
        """The number of test samples; None if only the data tell."""
        official = self.sizes[1] if isinstance(self, Labeled) and self._is_official() else None
        return getattr(self, "test_size", None) or official


class Labeled(Dataset):
    """Labelled samples that are the same for every trial.

    `train_size` and `test_size` take a class-balanced subset, and `val_size` holds that many
    training samples out for validation. Subset and split depend only on `subset_seed`, so that
    trials with different seeds use the same samples.
    """

    sizes: ClassVar[tuple[int, int]]  # train, test

    train_size: Samples | None = None
    test_size: Samples | None = None
    val_size: HeldOut = 0
    subset_seed: Size = 0

    def misfit(self, train: int, test: int) -> str | None:
        """Why these subsets cannot be taken from this number of samples, or None if they can."""
        if self.val_size + (self.train_size or 1) > train:
            asked = {"train_size": self.train_size, "val_size": self.val_size}
            given = " and ".join(f"`{name}: {size}`" for name, size in asked.items() if size)
            return f"{given}: more than the {train} training samples"
        if (self.test_size or 0) > test:
            return f"`test_size` exceeds the {test} test samples"
        return None

    @model_validator(mode="after")
    def _sizes_suffice(self) -> Self:
        misfit = self.misfit(*self.sizes) if self._is_official() else None
        if misfit:
            raise ValueError(misfit)
        return self

    def _is_official(self) -> bool:
        return True


class Filed(Labeled):
    """Labelled samples that are read from files.

    `checksums` are the MD5 of the files, by path inside the data set's folder; by default, the
    official ones. With other checksums, the files may have any number of samples.
    """

    checksums: dict[str, str] | None = None

    def _is_official(self) -> bool:
        return not self.checksums


class Images(Labeled):
    """Labelled images; `augment` moves training images, `normalize` sets the channels' scale."""

    kind = "images"

    augment: tuple[Augmentation, ...] = ()
    normalize: Flag = True

    @model_validator(mode="after")
    def _augmentations_have_one_order(self) -> Self:
        self._complete(augment=tuple(sorted(set(self.augment))))
        return self


class Text(Filed):
    """Labelled texts as character codes, of which the first `length` characters are kept."""

    kind = "text"

    length: Annotated[int, Field(ge=4, le=TEXT_LENGTH), A_NUMBER] = TEXT_LENGTH


class RandomDataset(Dataset):
    """Data drawn at random, from the trial's seed or from a `draw_seed`.

    With a `draw_seed`, trials with any seed use the same data.
    """

    origin = "generated from a trial's seed"

    draw_seed: Size | None = None


class Generated(RandomDataset):
    """Labelled points drawn at random."""

    kind = "vectors"

    train_size: Samples = 2000
    test_size: Samples = 1000
    val_size: HeldOut = 0

    @model_validator(mode="after")
    def _fits_into_memory(self) -> Self:
        samples, dim = self.train_size + self.test_size + self.val_size, getattr(self, "dim", 1)
        if samples * dim > MOST_SAMPLES:
            raise ValueError(
                f"{samples:,} samples in {dim:,} dimensions are {samples * dim:,} numbers; the "
                f"maximum is {MOST_SAMPLES:,}"
            )
        return self


class Digits(Images):
    """scikit-learn's bundled digits, 8 x 8 padded to 16 x 16 pixels: 1,347 train, 450 test."""

    sizes = (1347, 450)
    origin = "bundled with scikit-learn"

    name: Literal["digits"]


class Mnist(Filed, Images):
    """MNIST: 60,000 / 10,000 images of 28 x 28 in 10 classes."""

    sizes = (60_000, 10_000)

    name: Literal["mnist"]


class FashionMnist(Filed, Images):
    """Fashion-MNIST: 60,000 / 10,000 images of 28 x 28 in 10 classes."""

    sizes = (60_000, 10_000)

    name: Literal["fashion-mnist"]


class Cifar10(Filed, Images):
    """CIFAR-10: 50,000 / 10,000 colour images of 32 x 32 in 10 classes."""

    sizes = (50_000, 10_000)

    name: Literal["cifar10"]


class Cifar100(Filed, Images):
    """CIFAR-100: 50,000 / 10,000 colour images of 32 x 32 in 100 (fine) classes."""

    sizes = (50_000, 10_000)

    name: Literal["cifar100"]


class Svhn(Filed, Images):
    """SVHN, cropped digits: 73,257 / 26,032 colour images of 32 x 32, without the extra ones."""

    sizes = (73_257, 26_032)

    name: Literal["svhn"]


class TinyImagenet(Filed, Images):
    """Tiny ImageNet: 100,000 / 10,000 colour images of 64 x 64 in 200 classes.

    The test images are the official validation images, as only these have public labels.
    `resolution` is the height and width to which the images are resized, with antialiasing.
    """

    sizes = (100_000, 10_000)

    name: Literal["tiny-imagenet"]
    resolution: Annotated[int, Field(ge=1, le=LARGEST_RESOLUTION), A_NUMBER] = 64


class AgNews(Text):
    """AG News: 120,000 / 7,600 news items in 4 classes."""

    sizes = (120_000, 7600)

    name: Literal["agnews"]


class AgNewsSmall(Text):
    """The first tenth of AG News for training, 12,000 items; the 7,600 official test items.

    These are the earliest items of each class, not a random sample: accuracies are not comparable
    with published ones. Title and description are joined without a space.
    """

    sizes = (12_000, 7600)

    name: Literal["agnews-small"]


class Spheres(Generated):
    """Concentric spheres in `dim` dimensions (Ott et al. 2021).

    The points are drawn from the trial's seed, or from `draw_seed`: then they are the same for
    trials of all seeds.
    """

    name: Literal["spheres"]
    dim: Width = 2


class ThreeMinima(Generated):
    """Initial states (x, v) of a damped particle, labelled by its final minimum (Ott et al. 2021).

    The states are drawn from the trial's seed, or from `draw_seed`: then they are the same for
    trials of all seeds.
    """

    name: Literal["three-minima"]


class Spiral(RandomDataset):
    """A linear spiral sink, observed with noise drawn at random (`saparina/neural-ode`).

    `points` over the time `span`, with normal noise of standard deviation `noise`, drawn from the
    trial's seed or from `draw_seed`. An epoch has `windows` windows drawn at random. The headline
    is the error over the whole span; a training window is never longer than 5.
    """

    kind = "trajectories"
    metric = "error"
    higher_is_better = False

    name: Literal["spiral"]
    points: Steps = 200
    span: Time = 18.87
    noise: NonNegative = 0.01
    windows: Steps = 100

    @model_validator(mode="after")
    def _windows_have_points(self) -> Self:
        if self.points <= 2 * self.span:
            least = math.floor(2 * self.span) + 1
            raise ValueError(
                f"`points` must be at least {least} over a `span` of {self.span:g}, so that a "
                "window of length 1 has at least two"
            )
        return self


class System(RandomDataset):
    """Random initial states of a system, and its states after the time `span`.

    `decay` is y' = -A y in 4 dimensions, A symmetric with eigenvalues from 1 to `rate`;
    `rotation` turns the plane with angular velocity `rate`; `van-der-pol` is the oscillator
    x'' = rate (1 - x²) x' - x. The first two have a closed form.
    """

    kind = "states"
    metric = "error"
    higher_is_better = False

    name: Literal["system"]
    system: Literal["decay", "rotation", "van-der-pol"] = "decay"
    rate: Positive = 1.0
    span: Time = 1.0
    train_size: Samples = 64
    test_size: Samples = 64


class CustomData(ImportedSettings, Dataset):
    """A user's own function that is called with (settings, seed, root) and returns a `Data`."""

    origin = "a user's function"


DATASETS: dict[str, type[Dataset]] = {
    "digits": Digits,
    "mnist": Mnist,
    "fashion-mnist": FashionMnist,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "svhn": Svhn,
    "tiny-imagenet": TinyImagenet,
    "agnews": AgNews,
    "agnews-small": AgNewsSmall,
    "spheres": Spheres,
    "three-minima": ThreeMinima,
    "spiral": Spiral,
    "system": System,
}
