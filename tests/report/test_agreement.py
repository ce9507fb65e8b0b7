"""A published number is matched by what is known, never by what is not."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nodebench.report.analysis.agreement import PublishedMean, PublishedReading, agreement

POINT = 0.01


def seeds(mean: float, spread: float, n: int) -> pd.Series[float]:
    """So many values with just this mean and standard deviation."""
    values = pd.Series(range(n), dtype=float)
    return mean + spread * (values - values.mean()) / values.std(ddof=1)


OURS = seeds(0.85, 0.004, 5)


@pytest.mark.parametrize(
    ("theirs", "reading"),
    [
        (PublishedMean(0.987, n=5, spread=0.010), PublishedReading.DIFFERS),
        (PublishedMean(0.966, n=5, spread=0.004), PublishedReading.MATCHES),
        (PublishedMean(0.966, n=5, spread=0.010), PublishedReading.UNCERTAIN),
        (PublishedMean(0.966, n=5), PublishedReading.MATCHES),  # 0.1 ± 0.7 points
        (PublishedMean(0.966), PublishedReading.UNCERTAIN),  # one training: 0.1 ± 1.2 points
        (PublishedMean(0.980), PublishedReading.DIFFERS),
        (PublishedMean(0.978, doubt=0.01), PublishedReading.UNCERTAIN),
    ],
)
def test_reading_is_a_match_a_difference_or_uncertain(
    theirs: PublishedMean, reading: PublishedReading
) -> None:
    assert agreement(seeds(0.965, 0.004, 5), theirs, POINT).reading is reading


def test_a_wide_interval_is_no_match() -> None:
    """Evaluations of 54.6 ± 23.5 against 100.5, which once matched."""
    ours = seeds(54.6, 23.5 * math.sqrt(5) / 2.776, 5)
    assert agreement(ours, PublishedMean(100.5), 10).reading is PublishedReading.UNCERTAIN
    found = agreement(ours, PublishedMean(100.5, n=5), 10)
    assert (found.reading, found.half_width) == (
        PublishedReading.DIFFERS,
        pytest.approx(33.2, abs=0.1),
    )


@given(
    st.floats(-0.1, 0.1), st.floats(1e-5, 0.1), st.floats(1, 10), st.integers(2, 8),
    st.integers(2, 8), st.one_of(st.none(), st.floats(0, 0.1)),
)  # fmt: skip
def test_less_knowledge_never_makes_a_match(difference, spread, times, n, m, their_spread):
    theirs = PublishedMean(0.5, m, their_spread)
    vaguer = PublishedMean(0.5, m, None if their_spread is None else times * their_spread)
    ours = seeds(0.5 + difference, spread, n)
    known = agreement(ours, theirs, POINT)
    less = agreement(seeds(0.5 + difference, spread * times, n), vaguer, POINT).reading
    if less is PublishedReading.MATCHES:
        assert known.reading is PublishedReading.MATCHES
    holds_zero = abs(float(ours.mean()) - 0.5) <= known.half_width
    if holds_zero and times > 1:  # a clear difference within the margin is one beyond it too
        assert less is not PublishedReading.DIFFERS


@pytest.mark.parametrize("m", [2, 5, 20])
@pytest.mark.parametrize("spread", [0.001, 0.004, 0.02])
def test_the_interval_is_welch_s_where_the_study_gives_a_spread(m: int, spread: float) -> None:
    width = agreement(OURS, PublishedMean(0.85, m, spread), POINT).half_width
    for theirs, is_outside in ((0.85 + 0.999 * width, False), (0.85 + 1.001 * width, True)):
        welch = stats.ttest_ind_from_stats(0.85, 0.004, 5, theirs, spread, m, equal_var=False)
        assert bool(welch.pvalue < 0.05) is is_outside


def test_our_spread_stands_for_a_spread_that_is_not_published() -> None:
    for m in (1, 3, 5):
        width = stats.t.ppf(0.975, 4) * 0.004 * math.sqrt(1 / 5 + 1 / m)
        assert agreement(OURS, PublishedMean(0.85, m), POINT).half_width == pytest.approx(width)


def test_a_clear_difference_within_the_margin_is_a_match() -> None:
    found = agreement(seeds(0.85, 0.001, 5), PublishedMean(0.854, 5), POINT)
    assert found.reading is PublishedReading.MATCHES
    assert found.half_width < 0.004


@pytest.mark.parametrize(
    ("theirs", "spread"),
    [
        (PublishedMean(0.852, 5), 0.008),
        (PublishedMean(0.87, 5), 0.02),
        (PublishedMean(0.849, 5, 0.005), 0.01),
        (PublishedMean(0.86, 5), 0.01),
    ],
)  # fmt: skip
def test_deciding_number_of_seeds_decides(theirs: PublishedMean, spread: float) -> None:
    found = agreement(seeds(0.85, spread, 3), theirs, POINT)
    assert found.reading is PublishedReading.UNCERTAIN
    assert found.deciding is not None
    n = int(found.deciding)
    assert (
        agreement(seeds(0.85, spread, n), theirs, POINT).reading is not PublishedReading.UNCERTAIN
    )
    assert (
        agreement(seeds(0.85, spread, n - 1), theirs, POINT).reading is PublishedReading.UNCERTAIN
    )


def test_deciding_number_is_none_if_the_published_spread_is_too_wide() -> None:
    found = agreement(seeds(0.85, 0.004, 3), PublishedMean(0.86, 5, 0.05), POINT)
    assert (found.reading, found.deciding) == (PublishedReading.UNCERTAIN, None)
    assert found.half_width_left == pytest.approx(stats.t.ppf(0.975, 4) * 0.05 / math.sqrt(5))
    # Read off to a point, a number cannot be matched to within a point.
    assert agreement(seeds(0.85, 1e-4, 3), PublishedMean(0.851, doubt=0.01), POINT).deciding is None


def test_deciding_number_is_infinite_beyond_a_thousand_seeds() -> None:
    limit = 1.959964 * 0.1 / math.sqrt(200)  # where infinitely many of ours are
    found = agreement(seeds(0.85, 0.1, 3), PublishedMean(0.85 + 1.01 * limit, 200), 1e-6)
    assert (found.reading, found.deciding) == (PublishedReading.UNCERTAIN, math.inf)


def test_equal_seeds_are_not_comparable() -> None:
    same = pd.Series([0.9, 0.9, 0.9])
    for theirs in (PublishedMean(0.9), PublishedMean(0.8), PublishedMean(0.8, 5, 0.01)):
        assert agreement(same, theirs, POINT).reading is PublishedReading.NOT_COMPARABLE
