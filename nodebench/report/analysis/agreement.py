"""Whether our mean agrees with a published one: by an interval and a margin, not by a guess.

A wide interval holds zero because little is known. So a published number is not matched until the
whole 95 % interval of the difference lies within a stated margin (a test of equivalence).
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
"""Numbers of seeds that are tried for one that would decide."""


class PublishedReading(StrEnum):
    """What our seeds say of a published number."""

    MATCHES = "matches"
    DIFFERS = "differs"
    UNCERTAIN = "too uncertain to say"
    NOT_COMPARABLE = "not comparable"
    NOT_RUN = "not run"

    @property
    def text(self) -> str:
        """How a sentence counts such numbers: `3 matching and 1 differing`."""
        return PUBLISHED_IN_A_SENTENCE.get(self, self.value)


PUBLISHED_IN_A_SENTENCE = {
    PublishedReading.MATCHES: "matching",
    PublishedReading.DIFFERS: "differing",
}

COMPARED = (PublishedReading.MATCHES, PublishedReading.DIFFERS, PublishedReading.UNCERTAIN)
"""Readings of numbers that could be compared."""


@dataclass(frozen=True)
class Theirs:
    """A published mean of `n` trainings; of one, itself.

    `spread` is their standard deviation, taken to be ours where the study gives none. `doubt` is
    how far the value may be off for another reason, such as having been read off a figure.
    """

    value: float
    n: int = 1
    spread: float | None = None
    doubt: float = 0.0


@dataclass(frozen=True)
class Agreement:
    """A reading, and the interval of the difference that it rests on.

    Where that is too wide, `deciding` is the smallest number of our seeds with which, by the same
    mean and standard deviation, either reading would be reached: infinite beyond `MOST_SEEDS`, None
    if no number would do, since `half_width_left` remains by what is known of theirs.
    """

    reading: PublishedReading
    half_width: float
    deciding: float | None = None
    half_width_left: float = math.nan


def agreement(ours: pd.Series[float], theirs: Theirs, margin: float) -> Agreement:
    """Whether the mean of several seeds is the published one, to within the margin.

    It matches if the whole 95 % interval of the difference lies within the margin, also where the
    interval excludes zero: a difference that is clear but smaller than what matters. It differs if
    the interval excludes zero and reaches beyond the margin. Seeds that all give the same leave no
    interval: their spread is not known.
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
    counts: NDArray[np.float64], variance: float, theirs: Theirs
) -> NDArray[np.float64]:
    """Half the 95 % interval of the difference of means, by the number of our seeds.

    Welch's where the study gives a spread; else s² (1/n + 1/m), with our s² for both.
    """
    ours, spread = variance / counts, theirs.spread
    if spread is None:
        standard_error = np.sqrt(ours + variance / theirs.n)
        return critical(counts - 1) * standard_error + theirs.doubt
    total = ours + spread**2 / theirs.n
    parts = ours**2 / (counts - 1) + (spread**2 / theirs.n) ** 2 / (theirs.n - 1)
    with np.errstate(invalid="ignore"):  # a published spread of zero, of infinitely many seeds
        freedom = np.where(parts > 0, total**2 / parts, math.inf)
    return critical(freedom) * np.sqrt(total) + theirs.doubt
