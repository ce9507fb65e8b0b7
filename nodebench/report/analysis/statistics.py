"""Statistics over seeds: intervals, paired tests, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pandas.core.groupby import SeriesGroupBy

LEVEL = 0.95
"""The level of every confidence interval."""

SAME_TO_ROUNDING = 1e-9
"""Relative spread up to which values count as equal."""

FEWEST_SEEDS = 3
"""The fewest seeds whose mean is shown with an interval, or whose differences are tested.

The interval of two values is 12.7 times as long as their distance, so that both are shown instead.
"""

Bounds = tuple[float, float]
"""The lowest and the highest possible value of a mean."""

NOT_NEGATIVE: Bounds = (0.0, math.inf)
ANY: Bounds = (-math.inf, math.inf)
SHARE: Bounds = (0.0, 1.0)

HEADLINE_UNIT_COLUMNS = ("value", "own", "limit", "drop")
"""Columns of evaluated points and of verdicts that are in the unit of the headline metric."""


def is_share(name: str, headline: str = "") -> bool:
    """Whether a metric or a column is a share of 1, or a difference of two, shown in percent.

    `headline` is the metric that the models of its rows are judged by: `accuracy` or `error`.
    """
    return name.endswith("accuracy") or (headline == "accuracy" and name in HEADLINE_UNIT_COLUMNS)


def possible_values(name: str, headline: str = "") -> Bounds:
    """The range of a metric, or of a column of measured numbers, in its own unit."""
    if name == "drop":
        return possible_differences(headline)
    if name in ("order", "memory_power"):  # what should shrink or grow may not
        return ANY
    return SHARE if is_share(name, headline) else NOT_NEGATIVE


def possible_differences(name: str, headline: str = "") -> Bounds:
    """The range of a difference of two values of a metric."""
    low, high = possible_values(name, headline)
    return low - high, high - low


class Untested(StrEnum):
    """Why a difference over pairs is not tested, whatever it is between."""

    TOO_FEW = "too few seeds"
    ALIKE = "the same difference in every pair (not tested)"


@dataclass(frozen=True)
class PairedDifference:
    """A mean difference over `n` pairs, with its confidence interval from `low` to `high`.

    `effect` is Cohen's d of paired samples, the mean over the standard deviation; `p` is that of
    Student's paired t-test. For a single pair, or pairs that all differ by the same amount, all
    statistics except the mean are nan.
    """

    mean: float
    low: float
    high: float
    effect: float
    p: float
    n: int

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return self.high - self.mean

    @property
    def is_none(self) -> bool:
        """Whether the two sides are the same for every seed."""
        return self.mean == 0 and self.has_no_interval

    @property
    def has_no_interval(self) -> bool:
        """Whether the spread of the difference is unknown: there is one pair, or all are alike."""
        return math.isnan(self.low)

    @property
    def untested(self) -> Untested | None:
        """Why the difference is not tested; None if it is."""
        if self.n < FEWEST_SEEDS:
            return Untested.TOO_FEW
        return Untested.ALIKE if self.has_no_interval else None

    @property
    def is_tested(self) -> bool:
        """Whether there are enough pairs, and the spread of the difference is known."""
        return self.untested is None

    @property
    def shown_half_width(self) -> float:
        """Half the width of the interval that reports show; nan if the difference is not tested."""
        return self.half_width if self.is_tested else math.nan


def width_with(more: int, seeds: int) -> float:
    """The ratio of an interval's width with `more` seeds to that with `seeds`, at equal spread."""
    now, then = (float(critical(n - 1)) / math.sqrt(n) for n in (seeds, more))
    return then / now


def critical(freedom: float | NDArray[np.float64], intervals: int = 1) -> NDArray[np.float64]:
    """Half the width of a confidence interval in standard errors, by degrees of freedom (Student).

    Several `intervals` are widened so that all of them hold jointly (Bonferroni).
    """
    from scipy import stats

    return np.asarray(stats.t.ppf(1 - (1 - (1 + LEVEL) / 2) / intervals, freedom))


def alike(values: pd.Series[float]) -> bool:
    """Whether there are several values, all equal up to rounding.

    Their standard deviation of zero does not measure how much others would vary: accuracies are
    counts over samples, so a few of them, or of their differences, are often equal by chance.
    """
    return len(values) > 1 and bool(values.std(ddof=1) <= SAME_TO_ROUNDING * values.abs().max())


def half_width(values: pd.Series[float]) -> float:
    """Half the width of the confidence interval of a mean; nan for fewer than two values."""
    n = len(values)
    return float(critical(n - 1)) * float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan


def shown_half_width(values: pd.Series[float]) -> float:
    """Half the width of what a figure shows of a mean: its interval or, of two values, both."""
    if len(values) < FEWEST_SEEDS:
        return float(values.max() - values.min()) / 2 if len(values) > 1 else math.nan
    return half_width(values)


def shown_half_widths(groups: SeriesGroupBy[float, Any]) -> pd.DataFrame:
    """Each group's `mean`, and half the `width` of what a figure shows of it."""
    found = groups.agg(["mean", "std", "count"])
    count = found["count"].to_numpy()
    # Half the distance of two values is their standard deviation divided by √2.
    factor = np.where(count < FEWEST_SEEDS, 1.0, critical(np.maximum(count - 1, 1)))
    return found[["mean"]].assign(width=found["std"] * factor / np.sqrt(count))


def mean_intervals(groups: SeriesGroupBy[float, Any], possible: Bounds = ANY) -> pd.DataFrame:
    """Each group's `mean`, and what a figure shows of it from `low` to `high`."""
    found = shown_half_widths(groups)
    low, high = interval_ends(found["mean"], found["width"], possible)
    return found[["mean"]].assign(low=low, high=high).reset_index()


def interval_ends(
    means: pd.Series[float], widths: pd.Series[float], possible: Bounds
) -> tuple[pd.Series[float], pd.Series[float]]:
    """The ends of intervals, cut at the `possible` values; those of a single value are the value.

    Cutting an interval does not change how often it contains the true mean, which is possible.
    """
    known = widths.fillna(0.0)
    return (means - known).clip(lower=possible[0]), (means + known).clip(upper=possible[1])


def paired(ours: pd.Series[float], theirs: pd.Series[float]) -> PairedDifference | None:
    """Ours minus theirs, over the seeds that index both; None if there is no such seed."""
    from scipy import stats

    differences = (ours - theirs).dropna()
    n, mean = len(differences), float(differences.mean())
    if n == 0:
        return None
    if n == 1 or alike(differences):
        return PairedDifference(mean, math.nan, math.nan, math.nan, math.nan, n)
    spread, width = float(differences.std(ddof=1)), half_width(differences)
    p = float(stats.ttest_1samp(differences, 0.0).pvalue)
    return PairedDifference(mean, mean - width, mean + width, mean / spread, p, n)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for multiple testing (Holm 1979), in their original order."""
    adjusted, least = [math.nan] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def pareto(costs: Sequence[float], values: Sequence[float]) -> list[bool]:
    """Which points are Pareto-optimal: no other is better at no more cost, or as good for less."""
    marks = [False] * len(costs)
    last: tuple[float, float] | None = None  # point of the front, from the cheapest on
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -values[i])):
        point = costs[i], values[i]
        if last is None or values[i] > last[1] or point == last:
            marks[i], last = True, point
    return marks


def column(frame: pd.DataFrame, name: str) -> pd.Series[float]:
    """A column, empty if there is none of that name."""
    return frame[name] if name in frame else pd.Series(dtype=float)
