"""The fields of a sweep file."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any

from pydantic import AfterValidator

from nodebench.errors import shown
from nodebench.spec.settings import Settings
from nodebench.spec.training import Limits
from nodebench.spec.vocabulary import NonNegative, Positive, Size
from nodebench.sweep.file.claim import Claim
from nodebench.sweep.file.evaluate import Evaluate
from nodebench.sweep.file.made import Made
from nodebench.sweep.file.resources import Resources
from nodebench.sweep.file.search import Search, not_empty


def _distinct(values: tuple[int, ...]) -> tuple[int, ...]:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(
            f"has {shown(', '.join(map(str, twice)))} more than once, which gives the same trial"
        )
    return values


def _is_file_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise ValueError(
            f"`{name}` names folders, so it may have only letters, digits, `-` and `_`, at most 64 "
            "of them, and must start with a letter or digit"
        )
    return name


class SweepFile(Settings):
    """A sweep file as it is written; `sweep.load` expands it to trials.

    A report compares each configuration with its baseline: the one with the settings of `baseline`
    and otherwise identical. It also checks `claims`. A trained model may lose up to `margin` of the
    headline metric (accuracy as a share of 1) under a finer solver and still count as an ODE. A
    checkpoint is written at least every `checkpoint_minutes`, also inside an epoch. `small` and
    `medium` are the values that `--size` replaces, path -> value: a form that takes minutes, and
    one close to the study. `exclude` leaves out every combination of the grid that has all settings
    of an entry, path -> value; an invalid combination is compared without defaults.
    """

    name: Annotated[str, AfterValidator(_is_file_name)]
    about: str = ""
    include: str | None = None
    base: dict[str, Any] = {}
    grid: Annotated[tuple[dict[str, Any], ...], AfterValidator(not_empty)] = ({},)
    seeds: Annotated[tuple[Size, ...], AfterValidator(not_empty), AfterValidator(_distinct)] = (0,)
    exclude: tuple[dict[str, Any], ...] = ()
    search: Search | None = None
    evaluate: tuple[Evaluate, ...] = ()
    baseline: dict[str, Any] = {}
    claims: tuple[Claim, ...] = ()
    resources: Resources = Resources()
    limits: Limits = Limits()
    margin: NonNegative = 0.01
    checkpoint_minutes: Positive = 5.0
    small: dict[str, Any] = {}
    medium: dict[str, Any] = {}
    made: Made = Made()
