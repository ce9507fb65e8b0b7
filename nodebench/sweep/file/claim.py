"""Claims about a sweep's configurations that a report checks."""

from __future__ import annotations

from typing import Any, Self

from pydantic import model_validator

from nodebench.errors import unknown
from nodebench.spec.settings import Settings
from nodebench.spec.training import REGULARIZER_TERMS
from nodebench.spec.vocabulary import RESULT_NUMBERS, Number, Positive

MEASURES = (*RESULT_NUMBERS, *(f"regularizer_{name}" for name in REGULARIZER_TERMS))
"""The columns of `results.csv` that a claim may be about."""


class Claim(Settings):
    """A statement that a paper `says` about a sweep's configurations, as a relation to check.

    The `source` names the paper and its table or figure. A claim without a source is an expectation
    of ours, which reports list separately.

    The claim is about the `metric` (a column of `results.csv`, by default the headline) of the
    configurations `of`. It is `above` or `below` a number, or the metric of the otherwise identical
    configuration with the settings named there, by at least `by` (a negative `by` allows it to fall
    short by that much). Or it is `near` a number, `within` a distance. Accuracies are shares of 1.
    """

    says: str
    of: dict[str, Any] = {}
    metric: str | None = None
    above: Number | dict[str, Any] | None = None
    below: Number | dict[str, Any] | None = None
    by: Number = 0.0
    near: Number | None = None
    within: Positive | None = None
    source: str = ""

    @model_validator(mode="after")
    def _is_one_relation(self) -> Self:
        given = [name for name in ("above", "below", "near") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("needs one of `above`, `below` and `near`")
        if (self.near is None) != (self.within is None):
            raise ValueError("`near` and `within`, the largest distance, need each other")
        if self.metric is not None and self.metric not in MEASURES:
            raise ValueError(f"`metric`: {unknown(self.metric, 'metric', MEASURES)}")
        if self.by and self.near is not None:
            raise ValueError("`by` needs `above` or `below`")
        return self

    @property
    def other(self) -> float | dict[str, Any]:
        """The number or the cells that it compares with."""
        return next(x for x in (self.above, self.below, self.near) if x is not None)

    @property
    def cells(self) -> dict[str, dict[str, Any]]:
        """The claim's partial cells, by the name of their field."""
        other = "below" if self.above is None else "above"
        return {"of": self.of} | ({other: self.other} if isinstance(self.other, dict) else {})
