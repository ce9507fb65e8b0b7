"""What any model is to the rest, and the settings that networks of blocks have in common."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import model_validator

from nodebench.spec.norms import Norms
from nodebench.spec.settings import Settings
from nodebench.spec.vocabulary import BelowOne, Blocks, Channels, DynamicsName, norm_parts


class Model(Settings):
    """What the rest needs to know of any model."""

    name: str
    has_ode: ClassVar[bool]
    kinds: ClassVar[tuple[str, ...]] = ()
    limit_steps: ClassVar[int] = 128
    """Steps of classic Runge-Kutta that stand for the ODE, over each of its intervals of time."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The kinds of data that it takes; empty if that is its own business."""
        return self.kinds

    @property
    def ode_blocks(self) -> int | None:
        """How many ODE blocks a forward pass goes through; None if that is not known."""
        return int(self.has_ode)

    @property
    def normalizes_batches_in_ode(self) -> bool:
        """Whether batch norm stands inside an ODE block, or might, in a model of a user's own."""
        return False

    @property
    def span(self) -> float | None:
        """The time over which each block integrates; None if its data say that."""
        return float(getattr(self, "t1", 1.0))

    @property
    def length(self) -> float:
        """The time over which each block integrates; 1 where its data say that."""
        return self.span or 1.0


class Network(Model):
    """Stem, feature stage of residual or ODE blocks, head; `dropout` is that of the head."""

    width: Channels = 64
    norm: Norms = Norms()
    dropout: BelowOne = 0.0

    @property
    def normalizes_batches_in_ode(self) -> bool:
        """Whether batch norm stands inside an ODE block."""
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
        """The channel counts that the norms of each place meet, for the places that exist."""
        return {"stem": {self.width}, "ode" if self.has_ode else "residual": {self.width}}


class SingleStage(Network):
    """A network whose feature stage is `blocks` alike; `dynamics` names their f.

    A residual block computes x + f(0, x), and an ODE block integrates f over [0, t1]: a residual
    block is one Euler step.
    """

    blocks: Blocks = 1
    dynamics: DynamicsName = "postnorm"

    @property
    def ode_blocks(self) -> int:
        """All of its blocks, or none."""
        return self.blocks if self.has_ode else 0
