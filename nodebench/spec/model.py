"""The models and their settings. To add one, add a class and its row in `MODELS`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from pydantic import model_validator

from nodebench.spec.network import Activations, BatchNorms, ByPlace, Model, Network, SingleStage
from nodebench.spec.settings import ImportedSettings, parts_in
from nodebench.spec.vocabulary import (
    DYNAMICS,
    MOTIONS,
    STAGES,
    ActivationName,
    BelowOne,
    Blocks,
    Channels,
    DynamicsName,
    MoreChannels,
    MotionName,
    NonNegative,
    SomeBlocks,
    Time,
    Width,
)

if TYPE_CHECKING:
    StagedResNetName: TypeAlias = str
    StagedOdeNetName: TypeAlias = str
else:
    StagedResNetName = Literal[*(f"resnet{depth}" for depth in STAGES)]
    StagedOdeNetName = Literal[*(f"odenet{depth}" for depth in STAGES)]


class ConvNetwork(SingleStage):
    """An image network with one feature stage (S1 and S3 of `docs/studies.md`).

    `augment_dim` channels of zeros are appended before the feature stage (Dupont et al. 2019).
    """

    kinds = ("images",)

    stem: Literal["conv", "res"] = "conv"
    augment_dim: MoreChannels = 0
    activation: ActivationName = "relu"

    def _channels(self) -> dict[str, set[int]]:
        wide = self.width + self.augment_dim
        places = {"stem": {self.width, wide}, "ode" if self.has_ode else "residual": {wide}}
        if self.stem == "res":
            places["residual"] = places.get("residual", set()) | {self.width}
        return places


class ResNet(ConvNetwork):
    """Residual blocks as the feature stage; `blocks: 0` leaves it out."""

    has_ode = False

    name: Literal["resnet"]
    blocks: Blocks = 6
    dynamics: DynamicsName = "preact"


class Moving(Model):
    """A model whose ODE blocks follow an equation of `motion`, of first or second order.

    In those of second order, the state has a velocity, which starts at zero, or at g(x), where g is
    a network like f (`initial_velocity: learned`). The next layer reads the position alone.
    """

    motion: MotionName = "first-order"
    initial_velocity: Literal["zero", "learned"] = "zero"

    @property
    def field_states(self) -> int:
        """The number of states side by side in the input of f: 2 for [x; v]."""
        return 2 if self.motion == "second-order" else 1

    @model_validator(mode="after")
    def _has_velocity(self) -> Self:
        if self.motion == "first-order" and self.initial_velocity != "zero":
            others = ", ".join(f"`{name}`" for name in MOTIONS if name != self.motion)
            raise ValueError(
                f"`initial_velocity: {self.initial_velocity}` needs a `motion` that has a velocity "
                f"({others})"
            )
        return self


class OdeNet(ConvNetwork, Moving):
    """ODE blocks as the feature stage, each integrated over [0, t1]."""

    has_ode = True

    name: Literal["odenet"]
    blocks: SomeBlocks = 1
    dynamics: DynamicsName = "postnorm"
    t1: Time = 1.0

    def _channels(self) -> dict[str, set[int]]:
        channels = super()._channels()
        if DYNAMICS[self.dynamics].layers.startswith("norm"):
            channels["ode"] |= {self.field_states * wide for wide in channels["ode"]}
        return channels


class StagedNetwork(Network):
    """An image network whose width doubles, and resolution halves, from stage to stage.

    `order` says whether norm and activation come after a convolution (`postact`) or before it
    (`preact`). Source: Gusak et al. 2020 (S4 of `docs/studies.md`); stages: `vocabulary.STAGES`.
    """

    kinds = ("images",)

    width: Channels = 16
    norm: BatchNorms = BatchNorms()
    activation: Activations = Activations()
    order: Literal["postact", "preact"] = "postact"

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """(residual blocks, ODE blocks) of each stage."""
        stages = STAGES[int(self.name[len("resnet") :])]
        return stages if self.has_ode else tuple((sum(counts), 0) for counts in stages)

    @property
    def ode_blocks(self) -> int:
        """The number of ODE blocks in all stages."""
        return sum(ode for _, ode in self.stages)

    @model_validator(mode="after")
    def _activations_fit(self) -> Self:
        self._complete(activation=self.activation.only(set(self._channels())))
        return self

    def _channels(self) -> dict[str, set[int]]:
        widths = [self.width * 2**stage for stage in range(len(self.stages))]
        # In the preact order, the stem's norm is the one before the pool.
        places = {"stem": {self.width if self.order == "postact" else widths[-1]}}
        for width, (residual, ode) in zip(widths, self.stages, strict=True):
            for place, blocks in (("residual", residual), ("ode", ode)):
                if blocks:
                    places[place] = places.get(place, set()) | {width}
        return places


class StagedResNet(StagedNetwork):
    """Residual blocks only."""

    has_ode = False

    name: StagedResNetName


class StagedOdeNet(StagedNetwork):
    """Residual blocks, then ODE blocks integrated over [0, t1], in every stage."""

    has_ode = True

    name: StagedOdeNetName
    t1: Time = 1.0


class TextNetwork(SingleStage):
    """A network over characters: embedding, convolution, blocks, top-4 pooling over time, 3 layers.

    Source: Conneau et al. 2017 as in `saparina/neural-ode` (S1 of `docs/studies.md`).
    """

    kinds = ("text",)

    norm: BatchNorms = BatchNorms()


class Vdcnn(TextNetwork):
    """Residual blocks as the feature stage."""

    has_ode = False

    name: Literal["vdcnn"]
    blocks: Blocks = 6
    dynamics: DynamicsName = "vdcnn"


class OdeVdcnn(TextNetwork):
    """ODE blocks as the feature stage, each integrated over [0, t1]."""

    has_ode = True

    name: Literal["odevdcnn"]
    blocks: SomeBlocks = 1
    dynamics: DynamicsName = "postnorm"
    t1: Time = 1.0


class Mlp(Model):
    """Fully connected layers on the flattened input (Chen et al. 2018, Table 1: 300 hidden)."""

    has_ode = False
    kinds = ("vectors", "images")

    name: Literal["mlp"]
    hidden: tuple[Width, ...] = (300,)
    activation: ActivationName = "relu"
    dropout: BelowOne = 0.0


class PlainOde(Moving):
    """An ODE block on the raw input, flatten, one linear layer (Ott et al. 2021).

    `field` is f: one-dimensional convolutions on vectors (`simple`), two-dimensional ones on
    images (`conv`), or fully connected layers on vectors (`linear`). `augment_dim` components, or
    channels, of zeros are appended to the input (Dupont et al. 2019).
    """

    has_ode = True
    kinds = ("vectors", "images")

    name: Literal["plainode"]
    field: Literal["simple", "conv", "linear"] = "simple"
    width: Width = 32
    augment_dim: MoreChannels = 0
    activation: ActivationName = "relu"
    init: Literal["normal", "xavier", "kaiming", "orthogonal"] = "kaiming"
    t1: Time = 1.0

    def misfit(self, kind: str) -> str | None:
        """The kind of data that the field takes, and the fields for this kind, if they differ."""
        taken = "images" if self.field == "conv" else "vectors"
        if kind == taken or kind not in self.kinds:
            return None if kind == taken else super().misfit(kind)
        others = "`conv`" if kind == "images" else "`simple` or `linear`"
        return f"`model.field: {self.field}` takes {taken} ({others} takes {kind})"


class NeuralOde(Model):
    """An ODE whose solution is the output: f is two linear layers, the first without a bias.

    Source: the spiral of `saparina/neural-ode`, where f has 2 hidden units and no activation.
    """

    has_ode = True
    kinds = ("trajectories",)
    limit_steps = 8

    name: Literal["neuralode"]
    width: Width = 2
    activation: ActivationName = "none"

    @property
    def span(self) -> None:
        """None: a solve runs from one observation to the next."""


class KnownSystem(Model):
    """The right-hand side of the data's own system, with its coefficients as parameters.

    Their initial values are the true ones times 1 + `off`, so that the loss has a gradient.
    """

    has_ode = True
    kinds = ("states",)
    limit_steps = 1024

    name: Literal["system"]
    off: NonNegative = 0.1

    @property
    def span(self) -> None:
        """None: the data determine it."""


class CustomModel(ImportedSettings, Model):
    """A user's own class or function, called with (spec, data); it may hold ODE blocks."""

    has_ode = True

    @property
    def ode_blocks(self) -> None:
        """None: the number is unknown."""

    @property
    def normalizes_batches_in_ode(self) -> bool:
        """True, since it is unknown."""
        return True


MODELS: dict[str, type[Model]] = {
    "resnet": ResNet,
    "odenet": OdeNet,
    **{f"resnet{depth}": StagedResNet for depth in STAGES},
    **{f"odenet{depth}": StagedOdeNet for depth in STAGES},
    "vdcnn": Vdcnn,
    "odevdcnn": OdeVdcnn,
    "mlp": Mlp,
    "plainode": PlainOde,
    "neuralode": NeuralOde,
    "system": KnownSystem,
}

BY_PLACE = {
    name
    for model in MODELS.values()
    for name, field in model.model_fields.items()
    if any(issubclass(part, ByPlace) for part in parts_in(field).values())
}
"""The settings of models that have a value for each place."""
