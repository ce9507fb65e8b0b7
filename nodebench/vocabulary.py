"""What exists, and what settings it takes: solver methods, norms, right-hand sides, models, data.

Free of torch, so that a plan is instant. `ode/`, `models/` and `data/` hold one table each from
these names to code; a test compares them. To add a part, add its row here and its row there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from nodebench.part import Part


@dataclass(frozen=True)
class Method:
    """A solver method.

    `stages` counts evaluations of the right-hand side per step; None where they vary from step
    to step. `kind` says what the method takes: `fixed` a number or size of steps, `adaptive` a
    tolerance, `multistep` steps for its grid and a tolerance for the iteration inside each.
    """

    order: int
    stages: int | None
    kind: Literal["fixed", "adaptive", "multistep"]
    source: str


METHODS: dict[str, Method] = {
    "euler": Method(1, 1, "fixed", "Euler 1768"),
    "midpoint": Method(2, 2, "fixed", "explicit midpoint rule, Runge 1895"),
    "heun2": Method(2, 2, "fixed", "explicit trapezoidal rule, Heun 1900"),
    "heun3": Method(3, 3, "fixed", "Heun 1900"),
    "rk4": Method(4, 4, "fixed", "the classic method, Kutta 1901 (not torchdiffeq's `rk4`)"),
    "rk4_38": Method(4, 4, "fixed", "the 3/8 rule, Kutta 1901 (torchdiffeq's `rk4`)"),
    "adaptive_heun": Method(2, 2, "adaptive", "Heun-Euler 2(1)"),
    "fehlberg2": Method(2, 3, "adaptive", "Fehlberg 1969, RKF1(2)"),
    "bosh3": Method(3, 4, "adaptive", "Bogacki, Shampine 1989, 3(2)"),
    "dopri5": Method(5, 7, "adaptive", "Dormand, Prince 1980, 5(4)"),
    "dopri8": Method(8, 14, "adaptive", "Prince, Dormand 1981, 8(7)"),
    "implicit_adams": Method(4, None, "multistep", "Adams-Bashforth-Moulton, torchdiffeq"),
    "scipy_solver": Method(5, None, "adaptive", "scipy.integrate.solve_ivp, by `scipy`"),
}

SCIPY_METHODS = ("RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA")

NORMS: dict[str, str] = {
    "gn": "group norm, 32 groups (one a channel below 32 channels)",
    "bn": "batch norm",
    "ln": "layer norm over channels and space: group norm with one group",
    "in": "instance norm, without affine parameters",
    "nf": "none",
}

GRADIENTS: dict[str, str] = {
    "backprop": "automatic differentiation through the solver's steps",
    "adjoint": "the continuous adjoint, solved backwards in time (Chen et al. 2018, Algorithm 1)",
    "recompute": "backprop, the block's steps recomputed in the backward pass (ANODE)",
}


@dataclass(frozen=True)
class Form:
    """The form of a right-hand side: its layers in order, and what its convolutions see.

    With `time`, t is appended to every convolution's input as one more channel.
    """

    layers: str
    time: bool
    bias: bool
    source: str


DYNAMICS: dict[str, Form] = {
    "preact": Form("norm act conv norm act conv", time=False, bias=False, source="He et al. 2016b"),
    "postnorm": Form(
        "conv act norm conv act norm", time=True, bias=False, source="saparina/neural-ode"
    ),
    "prenorm": Form(
        "norm act conv norm act conv norm", time=True, bias=True, source="Chen et al. 2018, code"
    ),
}

AUGMENTATIONS: dict[str, str] = {
    "crop": "pad by 4 pixels with zeros, then crop at random to the original size",
    "flip": "mirror left to right with probability 1/2",
}

if TYPE_CHECKING:
    MethodName: TypeAlias = str
    NormName: TypeAlias = str
    GradientName: TypeAlias = str
    DynamicsName: TypeAlias = str
    Augmentation: TypeAlias = str
    ScipyMethod: TypeAlias = str
else:
    MethodName, NormName, GradientName = Literal[*METHODS], Literal[*NORMS], Literal[*GRADIENTS]
    DynamicsName, Augmentation = Literal[*DYNAMICS], Literal[*AUGMENTATIONS]
    ScipyMethod = Literal[*SCIPY_METHODS]

Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0)]


class CustomSettings(Part):
    """A part by import path, `package.module:Name`, with the settings that it is called with."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    settings: dict[str, Any] = {}


# ------------------------------------------------------------------------------------ models


class Model(Part):
    """What the rest needs to know of any model."""

    name: str
    has_ode: ClassVar[bool]

    @property
    def reads(self) -> str | None:
        """The kind of data that it takes; None if that is its own business."""
        return None


class Norms(Part):
    """The norm of each place. None where a network has no such place."""

    stem: NormName | None = "gn"
    residual: NormName | None = "gn"
    ode: NormName | None = "gn"

    @model_validator(mode="before")
    @classmethod
    def _one_word_means_all_places(cls, value: Any) -> Any:
        return (
            dict.fromkeys(("stem", "residual", "ode"), value) if isinstance(value, str) else value
        )


class ConvNetwork(Model):
    """An image network: stem, feature stage, head (S1 and S3 of `docs/studies.md`).

    A residual block computes x + f(0, x), and an ODE block integrates f over [0, t1]: a residual
    block is one Euler step. `dynamics` names f.
    """

    stem: Literal["conv", "res"] = "conv"
    width: Count = 64
    norm: Norms = Norms()
    augment_dim: Size = 0

    @property
    def reads(self) -> str:
        """Images."""
        return "images"

    @model_validator(mode="after")
    def _norms_fit(self) -> Self:
        channels = self._channels()
        unused = {place: None for place in Norms.model_fields if place not in channels}
        self._complete(norm=self.norm.model_copy(update=unused))
        for place, counts in channels.items():
            uneven = [n for n in counts if n > 32 and n % 32]
            if getattr(self.norm, place) == "gn" and uneven:
                raise ValueError(
                    f"group norm has 32 groups, which {uneven[0]} channels do not fill evenly: "
                    "take a `width` (plus `augment_dim`) up to 32 or a multiple of 32, "
                    f"or another norm for `norm.{place}`"
                )
        return self

    def _channels(self) -> dict[str, set[int]]:
        """The channel counts that the norms of each place meet, for the places that exist."""
        wide = self.width + self.augment_dim
        places = {"stem": {self.width, wide}, "ode" if self.has_ode else "residual": {wide}}
        if self.stem == "res":
            places["residual"] = places.get("residual", set()) | {self.width}
        return places


class ResNet(ConvNetwork):
    """Residual blocks as the feature stage; `blocks: 0` leaves it out."""

    has_ode = False

    name: Literal["resnet"]
    blocks: Size = 6
    dynamics: DynamicsName = "preact"


class OdeNet(ConvNetwork):
    """ODE blocks as the feature stage, each integrated over [0, t1]."""

    has_ode = True

    name: Literal["odenet"]
    blocks: Count = 1
    dynamics: DynamicsName = "postnorm"
    t1: Positive = 1.0


class PlainOde(Model):
    """An ODE block on the raw input, flatten, one linear layer (Ott et al. 2021).

    `field` is f: one-dimensional convolutions on vectors (`simple`), two-dimensional ones on
    images (`conv`), or fully connected layers on vectors (`linear`).
    """

    has_ode = True

    name: Literal["plainode"]
    field: Literal["simple", "conv", "linear"] = "simple"
    width: Count = 32
    activation: Literal["relu", "leaky_relu", "sigmoid"] = "relu"
    init: Literal["normal", "xavier", "kaiming", "orthogonal"] = "kaiming"
    t1: Positive = 1.0

    @property
    def reads(self) -> str:
        """The kind of data that the field takes."""
        return "images" if self.field == "conv" else "vectors"


class CustomModel(CustomSettings, Model):
    """A user's own class or function, called with (spec, data); it may hold ODE blocks."""

    has_ode = True


MODELS: dict[str, type[Model]] = {"resnet": ResNet, "odenet": OdeNet, "plainode": PlainOde}

# -------------------------------------------------------------------------------------- data


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


class CustomData(CustomSettings, Dataset):
    """A user's own function, called with (settings, seed, root), that gives a `Data`."""


DATASETS: dict[str, type[Dataset]] = {"digits": Digits, "mnist": Mnist, "spheres": Spheres}
