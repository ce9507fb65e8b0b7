"""Random samples of fields, and when their trials are stopped early."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from nodebench.spec.settings import NamedSettings, Settings
from nodebench.spec.vocabulary import A_NUMBER, Count, Integer, Number, Positive, Size


def not_empty(values: Any) -> Any:
    """Values of which there must be some.

    Raises:
        ValueError: if there are none.
    """
    if not values:
        raise ValueError("is empty, so there is no trial")
    return values


class Range(Settings):
    """The distribution of a field's samples: one of these, bounds included."""

    uniform: tuple[Number, Number] | None = None
    log_uniform: tuple[Positive, Positive] | None = None
    integers: tuple[Integer, Integer] | None = None
    choice: tuple[Any, ...] | None = None

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        given = {name: value for name, value in self if value is not None}
        if len(given) != 1:
            raise ValueError(f"needs one of {', '.join(f'`{n}`' for n in Range.model_fields)}")
        [(name, values)] = given.items()
        if name == "choice" and not values:
            raise ValueError("`choice` is empty")
        if name != "choice" and not values[0] < values[1]:
            raise ValueError(f"`{name}: {list(values)}`: the smaller number must come first")
        return self


class Stop(NamedSettings):
    """Early stopping by ASHA (Li et al. 2020, "A system for massively parallel tuning").

    After `grace` epochs, and again each time that the number of epochs has grown by the factor
    `reduction`, the best 1/`reduction` of the trials that have reached this point continue, by
    their headline metric on validation data. The choice depends on the order of their arrival.
    """

    name: Literal["asha"] = "asha"
    grace: Count = 1
    reduction: Annotated[int, Field(ge=2), A_NUMBER] = 3


class Search(Settings):
    """Random samples of a `space`, path -> range, for sweeps that tune rather than compare.

    Every configuration of the grid is combined with each of `samples` samples. Adding samples or
    fields does not change the earlier samples.
    """

    samples: Count
    space: Annotated[dict[str, Range], AfterValidator(not_empty)]
    seed: Size = 0
    stop: Stop | None = None
