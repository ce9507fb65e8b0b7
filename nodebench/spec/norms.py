"""Settings with a value for each place of a network: stem, residual blocks, ODE blocks."""

from __future__ import annotations

from typing import Any, Self

from pydantic import model_validator

from nodebench.spec.settings import Settings
from nodebench.spec.vocabulary import ActivationName, NormName

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
