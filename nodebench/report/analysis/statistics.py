"""Statistics over seeds: intervals, paired tests, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pandas.core.groupby import SeriesGroupBy

LEVEL = 0.95
"""Of every confidence interval."""

SAME_TO_ROUNDING = 1e-9
"""Relative spread below which differences are the same."""

FEWEST_PAIRS = 3
"""Seeds that two cells have in common, below which a difference is given without a test."""


@dataclass(frozen=True)
class PairedDifference:
    """A mean difference over `n` pairs, its confidence interval between `low` and `high`.

    `effect` is Cohen's d of paired samples, the mean over the standard deviation; `p` is that of
    Student's paired t-test. What a single pair, or pairs that all differ by the same, do not give
    is nan: all but the mean.
    """

    mean: float
    low: float
    high: float
    effect: float
    p: float
    n: int

    @property
    def half_width(self) -> float:
        """Half the interval."""
        return self.high - self.mean

    @property
    def is_none(self) -> bool:
        """Whether the two are the same for every seed."""
        return self.mean == 0 and self.has_no_interval

    @property
    def has_no_interval(self) -> bool:
        """Whether the pairs do not say how much the difference scatters: one, or all alike."""
        return math.isnan(self.low)


def width_with(more: int, seeds: int) -> float:
    """An interval's width with `more` seeds over that with `seeds`, at the same spread."""
    now, then = (float(critical(n - 1)) / math.sqrt(n) for n in (seeds, more))
    return then / now


def critical(freedom: float | NDArray[np.float64], intervals: int = 1) -> NDArray[np.float64]:
    """How many standard errors a confidence interval reaches, by degrees of freedom (Student).

    Several `intervals` are so wide that all of them hold together (Bonferroni).
    """
    from scipy import stats

    return np.asarray(stats.t.ppf(1 - (1 - (1 + LEVEL) / 2) / intervals, freedom))


def alike(values: pd.Series[float]) -> bool:
    """Whether several values are the same, to rounding.

    Their standard deviation of zero does not measure how much others would scatter: accuracies are
    counts over samples, so that few of them, or their differences, are often the same by chance.
    """
    return len(values) > 1 and bool(values.std(ddof=1) <= SAME_TO_ROUNDING * values.abs().max())


def half_width(values: pd.Series[float]) -> float:
    """Of the confidence interval of a mean; nan of fewer than two values."""
    n = len(values)
    return float(critical(n - 1)) * float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan


def mean_intervals(groups: SeriesGroupBy[float, Any]) -> pd.DataFrame:
    """The `mean` of each group, and `low` and `high`, its confidence interval; of one, itself."""
    found = groups.agg(["mean", "std", "count"])
    count = found["count"].to_numpy()
    width = found["std"].fillna(0.0) * critical(np.maximum(count - 1, 1)) / np.sqrt(count)
    ends = {"low": found["mean"] - width, "high": found["mean"] + width}
    return found[["mean"]].assign(**ends).reset_index()


def paired(ours: pd.Series[float], theirs: pd.Series[float]) -> PairedDifference | None:
    """Ours less theirs, over the seeds that index both; None if there is none."""
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
    """P values corrected for their number (Holm 1979), in the order that they came."""
    adjusted, least = [math.nan] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def pareto(costs: Sequence[float], values: Sequence[float]) -> list[bool]:
    """Which points no other surpasses: none is better at no more cost, or as good for less."""
    marks = [False] * len(costs)
    last: tuple[float, float] | None = None  # of the front, from the cheapest on
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -values[i])):
        point = costs[i], values[i]
        if last is None or values[i] > last[1] or point == last:
            marks[i], last = True, point
    return marks


def column(frame: pd.DataFrame, name: str) -> pd.Series[float]:
    """A column, empty if there is none of that name."""
    return frame[name] if name in frame else pd.Series(dtype=float)
