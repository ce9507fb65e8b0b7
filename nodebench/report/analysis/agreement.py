"""Whether our mean agrees with a published one, by a test of equivalence.

A wide interval contains zero because little is known. Therefore, a published number is matched only
if the whole 95 % interval of the difference lies within a stated margin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nodebench.report.analysis.statistics import alike, critical

MOST_SEEDS = 1000
"""The largest number of seeds tried in the search for one that would decide."""


class PublishedReading(StrEnum):
    """The result of comparing our seeds with a published number."""

    MATCHES = "matches"
    DIFFERS = "differs"
    UNCERTAIN = "too uncertain to say"
    NOT_COMPARABLE = "not comparable"
    NOT_RUN = "not run"

    @property
    def text(self) -> str:
        """The words after a count in a sentence: `3 matching and 1 differing`."""
        return PUBLISHED_IN_A_SENTENCE.get(self, self.value)


PUBLISHED_IN_A_SENTENCE = {
    PublishedReading.MATCHES: "matching",
    PublishedReading.DIFFERS: "differing",
}

COMPARED = (PublishedReading.MATCHES, PublishedReading.DIFFERS, PublishedReading.UNCERTAIN)
"""Readings of numbers that could be compared."""


@dataclass(frozen=True)
class PublishedMean:
    """A published mean over `n` trainings, or the value of a single one.

    `spread` is their standard deviation; if the study gives none, ours is used. `doubt` is how far
    the value may be off for another reason, such as having been read off a figure.
    """

    value: float
    n: int = 1
    spread: float | None = None
    doubt: float = 0.0


@dataclass(frozen=True)
class Agreement:
    """A reading, and half the width of the interval of the difference that it rests on.

    If the interval is too wide, `deciding` is the smallest number of our seeds that would decide,
    at the same mean and standard deviation. It is infinite beyond `MOST_SEEDS`, and None if no
    number would do, since the uncertainty of theirs leaves `half_width_left`.
    """

    reading: PublishedReading
    half_width: float
    deciding: float | None = None
    half_width_left: float = math.nan


def agreement(ours: pd.Series[float], theirs: PublishedMean, margin: float) -> Agreement:
    """Whether the mean of several seeds equals the published one, to within the margin.

    It matches if the whole 95 % interval of the difference lies within the margin, even if the
    interval excludes zero: the difference is then clear, but too small to matter. It differs if the
    interval excludes zero and reaches beyond the margin. If all seeds give the same value, there is
    no interval, because their spread is not known.
    """
    if alike(ours):
        return Agreement(PublishedReading.NOT_COMPARABLE, math.nan)
    n, variance = len(ours), float(ours.var(ddof=1))
    difference = abs(float(ours.mean()) - theirs.value)
    counts = np.concatenate([[n], np.arange(n + 1, MOST_SEEDS + 1), [math.inf]])
    widths = _half_widths(counts, variance, theirs)
    matches, differs = difference + widths <= margin, difference > widths
    if matches[0] or differs[0]:
        return Agreement(
            PublishedReading.MATCHES if matches[0] else PublishedReading.DIFFERS, float(widths[0])
        )
    decided = counts[matches | differs]
    deciding = float(decided[0]) if len(decided) else None
    return Agreement(PublishedReading.UNCERTAIN, float(widths[0]), deciding, float(widths[-1]))


def _half_widths(
    counts: NDArray[np.float64], variance: float, theirs: PublishedMean
) -> NDArray[np.float64]:
    """Half the 95 % interval of the difference of means, by the number of our seeds.

    By Welch's test if the study gives a spread; otherwise by s² (1/n + 1/m), with our s² for both.
    """
    ours, spread = variance / counts, theirs.spread
    if spread is None:
        standard_error = np.sqrt(ours + variance / theirs.n)
        return critical(counts - 1) * standard_error + theirs.doubt
    total = ours + spread**2 / theirs.n
    parts = ours**2 / (counts - 1) + (spread**2 / theirs.n) ** 2 / (theirs.n - 1)
    with np.errstate(invalid="ignore"):  # 0/0 for a published spread of zero and infinite seeds
        freedom = np.where(parts > 0, total**2 / parts, math.inf)
    return critical(freedom) * np.sqrt(total) + theirs.doubt
