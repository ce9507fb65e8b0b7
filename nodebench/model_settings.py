"""The models, and what settings each takes. To add one: a class and its row in `MODELS`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from nodebench.part import Imported, Part
from nodebench.vocabulary import Count, DynamicsName, NormName, Positive, Size


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


class CustomModel(Imported, Model):
    """A user's own class or function, called with (spec, data); it may hold ODE blocks."""

    has_ode = True


MODELS: dict[str, type[Model]] = {"resnet": ResNet, "odenet": OdeNet, "plainode": PlainOde}
