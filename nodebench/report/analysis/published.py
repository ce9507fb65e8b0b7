"""Published numbers, from `published.yaml`, and the cells of sweeps that they belong to."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pandas as pd
import yaml
from pydantic import Field, model_validator

from nodebench.errors import TrialOutcome
from nodebench.report.analysis.agreement import (
    COMPARED,
    MOST_SEEDS,
    Agreement,
    PublishedMean,
    PublishedReading,
    agreement,
)
from nodebench.report.analysis.columns import OUTCOME, TIMED_SECONDS, TRIAL
from nodebench.report.analysis.formatting import (
    NO_VALUE,
    differences_text,
    mean_and_interval,
    measured,
    whole,
)
from nodebench.report.analysis.frames import at_the_limit
from nodebench.report.analysis.sizes import caveat
from nodebench.report.analysis.statistics import column
from nodebench.spec import TrialSpec
from nodebench.spec.settings import Settings
from nodebench.spec.vocabulary import A_NUMBER, Flag, NonNegative
from nodebench.sweep import Sweep
from nodebench.sweep.file import full_name
from nodebench.sweep.partial_cells import agrees

METRICS = {
    "test_accuracy": "test accuracy %",
    "best_test_accuracy": "test accuracy of the best epoch %",
    "parameters": "parameters",
    "epoch_s": "s/epoch, on their machine",
    "nfe_forward_mean": "NFE forward, mean over training",
}

UNITS = {"": 1.0, " K": 1e3, " M": 1e6}

MARGIN, RELATIVE_MARGIN = 0.01, 0.1
"""Margins of equivalence: absolute for accuracies, relative for counts."""

READ_OFF = 0.01
"""How far a number that was digitised from a figure may be off."""


class PublishedNumber(Settings):
    """One number that a study reports for one cell of a sweep.

    Accuracies are shares of 1. Parameters are the printed text, such as `0.60 M`, which shows to
    how many digits they are known. `spread` is the standard deviation that the study gives, over
    `n` trainings (an upper bound if the source gives only that); without `n`, the number is from
    one training. `read_off` marks a number digitised from a figure, to within 0.01.
    `under: limit` is the trained network's result under the finest solver, not under its own.

    Ours match it to within `margin`, by default 0.01 for an accuracy and 0.1 of the value for a
    count. `not_comparable` is the reason why ours cannot be expected to match.
    """

    cell: dict[str, Any]
    metric: Literal[
        "test_accuracy", "best_test_accuracy", "parameters", "epoch_s", "nfe_forward_mean"
    ] = "test_accuracy"
    value: float | str
    spread: NonNegative | None = None
    n: Annotated[int, Field(ge=2), A_NUMBER] | None = None
    margin: NonNegative | None = None
    under: Literal["limit"] | None = None
    read_off: Flag = False
    not_comparable: str = ""
    source: str

    @model_validator(mode="after")
    def _is_known_well_enough(self) -> Self:
        if self.spread is not None and self.n is None:
            raise ValueError("`spread` needs `n`, the number of trainings or an upper bound")
        is_text = isinstance(self.value, str)
        if is_text != (self.metric == "parameters"):
            raise ValueError("`value` must be the printed text for `parameters`, else a number")
        if is_text and not re.fullmatch(r"\d+(\.\d+)?( [KM])?", str(self.value)):
            raise ValueError(f"`value` is `{self.value}`: write parameter counts like `0.60 M`")
        return self

    def __str__(self) -> str:
        if isinstance(self.value, str):
            return self.value
        known = [] if self.spread is None else [f"s.d. {self.spread * self.scale:.6g}"]
        known += [] if self.n is None else [f"n = {self.n}"]
        text = f"{self.value * self.scale:.6g}" + (f" ({', '.join(known)})" if known else "")
        return f"~{text}" if self.read_off else text

    @property
    def what(self) -> str:
        """The metric in words."""
        return METRICS[self.metric] + (", at the limit" if self.under else "")

    @property
    def is_accuracy(self) -> bool:
        """Whether it is a share of 1, shown in percent."""
        return self.metric.endswith("accuracy")

    @property
    def scale(self) -> float:
        """The factor by which it is multiplied for display."""
        return 100.0 if self.is_accuracy else 1.0

    @property
    def number(self) -> float:
        """The value as a number, also if it is printed text."""
        if not isinstance(self.value, str):
            return self.value
        digits, unit = _digits_and_unit(self.value)
        return float(digits) * unit

    @property
    def within(self) -> float | None:
        """The margin in the metric's own unit; None for parameters, which are known exactly."""
        if self.metric == "parameters":
            return None
        if self.is_accuracy:
            return MARGIN if self.margin is None else self.margin
        return self.number * (RELATIVE_MARGIN if self.margin is None else self.margin)

    @property
    def obstacle(self) -> str:
        """Why no run of ours can be compared with it; empty if one can."""
        return self.not_comparable or ("another machine" if self.metric == "epoch_s" else "")

    def is_rounding_of(self, count: float) -> bool:
        """Whether it equals `count`, rounded to the digits that were printed."""
        digits, unit = _digits_and_unit(str(self.value))
        decimals = len(digits.partition(".")[2])
        return f"{count / unit:.{decimals}f}" == digits


def _digits_and_unit(text: str) -> tuple[str, float]:
    """Digits and unit: `0.60 M` -> `0.60` and a million."""
    digits = text.rstrip(" KM")
    return digits, UNITS[text.removeprefix(digits)]


class PublishedStudy(Settings):
    """The published numbers of one sweep; they apply to the data set that it names."""

    data: str
    numbers: tuple[PublishedNumber, ...]

    def has(self, number: PublishedNumber, spec: TrialSpec) -> bool:
        """Whether one of its numbers is about a trial's cell."""
        return self.data == spec.data.name and agrees(spec, number.cell)


@lru_cache
def studies() -> dict[str, PublishedStudy]:
    """Sweep -> its published numbers."""
    text = (Path(__file__).parent / "published.yaml").read_text(encoding="utf-8")
    return {
        sweep: PublishedStudy.model_validate(study) for sweep, study in yaml.safe_load(text).items()
    }


def about(sweep: str, spec: TrialSpec) -> list[PublishedNumber]:
    """The numbers about a trial's cell; a smaller size has the same as the full one."""
    study = studies().get(full_name(sweep))
    return [entry for entry in study.numbers if study.has(entry, spec)] if study else []


@dataclass(frozen=True)
class Compared:
    """A published number of a cell, our values, the reading of both, and a note on it.

    `caveat` is a possible cause of a difference, such as a shorter training.
    """

    cell: str
    entry: PublishedNumber
    ours: pd.Series[float]
    reading: PublishedReading
    note: str = ""
    half_width: float = math.nan
    caveat: str = ""

    @property
    def difference(self) -> str:
        """Ours minus theirs, ± half its 95 % interval if there is one; of two seeds, each one's."""
        is_count = self.entry.metric == "parameters"
        form = ",.0f" if is_count else ".2f" if self.entry.is_accuracy else ".3g"
        scale, differences = self.entry.scale, self.ours - self.entry.number
        return differences_text(scale * differences, scale * self.half_width, form)

    @property
    def why(self) -> str:
        """The note on the reading and the caveat, where they apply; empty if neither does."""
        is_doubtful = self.reading in COMPARED and self.entry.metric != "parameters"
        return ", ".join(filter(None, (self.note, self.caveat if is_doubtful else "")))

    @property
    def text(self) -> str:
        """The reading with its reasons, as a table shows them."""
        return self.reading.value + (f": {self.why}" if self.why else "")


def compared_number(
    cell: str, entry: PublishedNumber, ours: pd.Series[float], obstacle: str = ""
) -> Compared:
    """Whether our seeds match the published number; `obstacle` is the reason why they cannot.

    Parameter counts are compared to as many digits as are printed.
    """

    def read(reading: PublishedReading, note: str = "", half_width: float = math.nan) -> Compared:
        return Compared(cell, entry, ours, reading, note, half_width)

    if ours.empty:
        return read(PublishedReading.NOT_RUN)
    if obstacle := _why_not_comparable(entry, ours, obstacle):
        return read(PublishedReading.NOT_COMPARABLE, obstacle)
    if entry.within is None:
        is_same = entry.is_rounding_of(float(ours.mean()))
        return read(PublishedReading.MATCHES if is_same else PublishedReading.DIFFERS)
    theirs = PublishedMean(
        entry.number, entry.n or 1, entry.spread, READ_OFF if entry.read_off else 0.0
    )
    found = agreement(ours, theirs, entry.within)
    return read(found.reading, _note(entry, ours, found), found.half_width)


def _why_not_comparable(entry: PublishedNumber, ours: pd.Series[float], known: str) -> str:
    """Why a number cannot be compared with ours; empty if it can."""
    if entry.obstacle or entry.metric == "parameters":
        return entry.obstacle  # the small form has the networks of the full one
    return known or ("one seed" if len(ours) < 2 else "")


def _note(entry: PublishedNumber, ours: pd.Series[float], found: Agreement) -> str:
    """A remark on what the reading leaves open."""
    difference = abs(float(ours.mean()) - entry.number)
    if found.reading is PublishedReading.NOT_COMPARABLE:
        return "every seed gives the same value (not tested)"
    if found.reading is PublishedReading.MATCHES and difference > found.half_width:
        return "a clear difference, but within the margin"
    if found.reading is not PublishedReading.UNCERTAIN:
        return ""
    if found.deciding is None:
        left = f"{found.half_width_left * entry.scale:.3g}"
        return f"no number of our seeds would decide: the study's part alone is ± {left}"
    if found.deciding > MOST_SEEDS:
        return f"more than {MOST_SEEDS:,} of our seeds would decide"
    return f"{found.deciding:.0f} of our seeds would decide"


def published_text(sweep: str, spec: TrialSpec) -> str:
    """The published test accuracies of a trial's cell, as a table shows them; empty if none are."""
    marks = {"test_accuracy": "", "best_test_accuracy": " †"}
    entries = [entry for entry in about(sweep, spec) if entry.metric in marks and not entry.under]
    return ", ".join(f"{entry}{marks[entry.metric]}" for entry in entries)


def _by_trial(done: pd.DataFrame, metric: str) -> pd.Series[float]:
    """A metric of each trial; seconds are those of the timing pass, if there was one."""
    is_timed = metric == "epoch_s" and column(done, TIMED_SECONDS).notna().any()
    return column(done, TIMED_SECONDS if is_timed else metric)


def compared_numbers(sweep: Sweep, frame: pd.DataFrame, judged: pd.DataFrame) -> list[Compared]:
    """Every published number of the sweep's cells, with ours and whether they match."""
    numbers: dict[tuple[str, str], tuple[PublishedNumber, list[str]]] = {}
    for trial in sweep.trials:
        for entry in about(sweep.name, trial.spec):
            key = sweep.cell_label(trial), entry.what
            numbers.setdefault(key, (entry, []))[1].append(trial.id)
    found = []
    for (cell, _), (entry, ids) in numbers.items():
        done = frame[frame[TRIAL].isin(ids) & (frame[OUTCOME] == TrialOutcome.FINISHED)]
        ours = at_the_limit(judged, ids) if entry.under else _by_trial(done, entry.metric)
        each = compared_number(cell, entry, ours.dropna(), why_not_comparable(sweep))
        found.append(replace(each, caveat=caveat(sweep, ids)))
    return found


def published_table(found: Sequence[Compared]) -> pd.DataFrame:
    """One row per published number: ours, theirs, and whether they match."""
    return pd.DataFrame(
        {
            "configuration": each.cell,
            "what": each.entry.what,
            "ours": _ours_text(each.entry, each.ours),
            "n": str(len(each.ours)),
            "published": str(each.entry),
            "difference": each.difference,
            "margin": _margin_text(each.entry),
            "reading": each.text,
            "source": each.entry.source,
        }
        for each in found
    )


def why_not_comparable(sweep: Sweep) -> str:
    """Why the numbers of a sweep cannot be those of its study; empty if they can."""
    if sweep.made.size == "small":
        return "run in the small form"
    return "its configurations were changed by `--set`" if sweep.made.has_other_cells else ""


def _ours_text(entry: PublishedNumber, values: pd.Series[float]) -> str:
    if entry.is_accuracy:
        return measured("accuracy", values)
    return whole(values) if entry.metric == "parameters" else mean_and_interval(values, 1)


def _margin_text(entry: PublishedNumber) -> str:
    if entry.within is None or entry.metric == "epoch_s":
        return NO_VALUE
    return f"{entry.within * entry.scale:.3g}"
