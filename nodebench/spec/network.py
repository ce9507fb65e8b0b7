"""The interface of all models, and the settings that networks of blocks have in common."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import model_validator

from nodebench.spec.settings import Settings
from nodebench.spec.vocabulary import (
    ActivationName,
    BelowOne,
    Blocks,
    Channels,
    DynamicsName,
    NormName,
    norm_parts,
)

PLACES = ("stem", "residual", "ode")


class ByPlace(Settings):
    """A setting with a value for each place of a network; None if it has no such place."""

    @model_validator(mode="before")
    @classmethod
    def _one_word_means_all_places(cls, value: Any) -> Any:
        return dict.fromkeys(PLACES, value) if isinstance(value, str) else value

    def only(self, places: set[str]) -> Self:
        """The same without the places that do not exist."""
        return self.model_copy(update={place: None for place in PLACES if place not in places})


class Norms(ByPlace):
    """The norm of each part of the network, by default group norm."""

    stem: NormName | None = "gn"
    residual: NormName | None = "gn"
    ode: NormName | None = "gn"


class BatchNorms(Norms):
    """The norm of each part of the network, by default batch norm."""

    stem: NormName | None = "bn"
    residual: NormName | None = "bn"
    ode: NormName | None = "bn"


class Activations(ByPlace):
    """The activation of each part of the network."""

    stem: ActivationName | None = "relu"
    residual: ActivationName | None = "relu"
    ode: ActivationName | None = "relu"


class Model(Settings):
    """The properties that every model has."""

    name: str
    has_ode: ClassVar[bool]
    kinds: ClassVar[tuple[str, ...]] = ()
    limit_steps: ClassVar[int] = 128
    """The steps over each time interval with which classic Runge-Kutta stands for the ODE."""

    def misfit(self, kind: str) -> str | None:
        """The kinds of data that it takes, as a clause, if this kind is not among them."""
        if not self.kinds or kind in self.kinds:
            return None
        return f"`{self.name}` takes {' or '.join(self.kinds)}"

    @property
    def ode_blocks(self) -> int | None:
        """The number of ODE blocks in a forward pass; None if unknown."""
        return int(self.has_ode)

    @property
    def normalizes_batches_in_ode(self) -> bool:
        """Whether an ODE block contains batch norm, or may contain it in a user's own model."""
        return False

    @property
    def span(self) -> float | None:
        """The time over which each block integrates; None if the data determine it."""
        return float(getattr(self, "t1", 1.0))

    @property
    def length(self) -> float:
        """The time over which each block integrates; 1 if the data determine it."""
        return self.span or 1.0


class Network(Model):
    """Stem, feature stage of residual or ODE blocks, head; `dropout` applies to the head."""

    width: Channels = 64
    norm: Norms = Norms()
    dropout: BelowOne = 0.0

    @property
    def normalizes_batches_in_ode(self) -> bool:
        """Whether an ODE block contains batch norm."""
        return self.norm.ode is not None and norm_parts(self.norm.ode)[0] == "bn"

    @model_validator(mode="after")
    def _norms_fit(self) -> Self:
        channels = self._channels()
        self._complete(norm=self.norm.only(set(channels)))
        for place, counts in channels.items():
            uneven = [n for n in counts if n > 32 and n % 32]
            if uneven and norm_parts(getattr(self.norm, place))[0] == "gn":
                raise ValueError(
                    f"group norm has 32 groups, but {uneven[0]} channels are not a multiple of 32: "
                    "use a `width` (plus `augment_dim`) up to 32 or a multiple of 32, "
                    f"or another norm for `norm.{place}`"
                )
        return self

    def _channels(self) -> dict[str, set[int]]:
        """The channel counts of the norms at each place that exists."""
        return {"stem": {self.width}, "ode" if self.has_ode else "residual": {self.width}}


class SingleStage(Network):
    """A network whose feature stage has `blocks` equal blocks; `dynamics` names their f.

    A residual block computes x + f(0, x), and an ODE block integrates f over [0, t1]: a residual
    block is one Euler step.
    """

    blocks: Blocks = 1
    dynamics: DynamicsName = "postnorm"

    @property
    def ode_blocks(self) -> int:
        """All of its blocks, or none."""
        return self.blocks if self.has_ode else 0
