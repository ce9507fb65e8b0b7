"""Statistics against scipy, and on made-up data of which the answer is known."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nodebench.report.analysis.formatting import (
    count_and_interval,
    mean_and_interval,
    measured,
    measured_difference,
    measured_with_unit,
    signed,
    signed_and_interval,
    signed_ends,
    three_digits_and_interval,
)
from nodebench.report.analysis.statistics import (
    ANY,
    alike,
    half_width,
    holm,
    mean_intervals,
    paired,
    pareto,
    possible_differences,
    possible_values,
    shown_half_width,
    width_with,
)

SEEDS = st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=12)


@given(SEEDS)
def test_the_interval_of_a_mean_is_scipy_s(values):
    if len(set(values)) < 2:
        return
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=sum(values) / len(values), scale=stats.sem(values)
    )
    assert half_width(pd.Series(values)) == pytest.approx((high - low) / 2)


def test_a_single_value_has_no_interval():
    assert math.isnan(half_width(pd.Series([1.0])))
    assert mean_and_interval(pd.Series([1.0]), 1) == "1.0"


def test_intervals_of_many_groups_are_those_of_each():
    data = pd.DataFrame({"line": list("aaabbc"), "x": [1.0, 2.0, 4.0, 6.0, 8.0, 5.0]})
    found = mean_intervals(data.groupby("line")["x"]).set_index("line")
    widths = data.groupby("line")["x"].apply(shown_half_width).fillna(0.0)
    assert found["mean"].tolist() == pytest.approx([7 / 3, 7, 5])
    assert widths.tolist() == pytest.approx([half_width(data["x"][:3]), 1, 0])
    assert (found["high"] - found["mean"]).tolist() == pytest.approx(widths.tolist())
    assert (found["mean"] - found["low"]).tolist() == pytest.approx(widths.tolist())


def test_interval_is_cut_only_at_possible_values():
    data = pd.DataFrame({"line": list("aaab"), "y": [0.9, 0.97, 0.935, 0.4]})
    possible = possible_values("test_accuracy")
    found = mean_intervals(data.groupby("line")["y"], possible)
    assert found["low"].tolist() == pytest.approx([0.8481, 0.4], abs=1e-4)
    assert found["high"].tolist() == [1.0, 0.4]


@pytest.mark.parametrize(
    ("name", "headline", "possible"),
    [("test_accuracy", "accuracy", (0, 1)), ("limit", "accuracy", (0, 1)),
     ("limit", "error", (0, math.inf)), ("drop", "accuracy", (-1, 1)),
     ("drop", "error", (-math.inf, math.inf)), ("nfe_forward", "accuracy", (0, math.inf)),
     ("timed_epoch_s", "error", (0, math.inf)), ("order", "accuracy", (-math.inf, math.inf))],
)  # fmt: skip
def test_possible_values_follow_from_the_metric(name, headline, possible):
    assert possible_values(name, headline) == possible
    low, high = possible
    assert possible_differences(name, headline) == (low - high, high - low)


@given(SEEDS, st.integers(0, 2**31))
def test_a_paired_difference_is_scipy_s(values, seed):
    ours = pd.Series(values, index=range(len(values)))
    theirs = ours.sample(frac=1, random_state=seed).reset_index(drop=True)
    found = paired(ours, theirs)
    if (ours - theirs).std() == 0:
        return
    expected = stats.ttest_rel(ours, theirs)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_pairs_are_those_of_the_same_seed():
    ours = pd.Series({0: 1.0, 1: 2.0, 2: 9.0})
    theirs = pd.Series({2: 8.0, 1: 1.0, 7: 100.0})
    found = paired(ours, theirs)
    assert (found.n, found.mean) == (2, 1.0)
    assert math.isnan(found.p)  # both differ by 1: nothing to test
    assert found.has_no_interval
    assert paired(ours, pd.Series({5: 1.0})) is None


def test_one_pair_has_a_difference_and_no_test():
    found = paired(pd.Series({0: 3.0}), pd.Series({0: 1.0}))
    assert found.mean == 2.0
    assert math.isnan(found.p)


@pytest.mark.parametrize(
    ("values", "are_alike"),
    [([0.9, 0.9], True), ([0.1 + 0.2, 0.3], True), ([0.0, 0.0], True), ([0.9], False),
     ([], False), ([0.9, 0.9001], False)],
)  # fmt: skip
def test_several_values_are_alike_to_rounding(values, are_alike):
    assert alike(pd.Series(values, dtype=float)) is are_alike


def test_equal_cells_do_not_differ():
    same = pd.Series({0: 1.0, 1: 2.0, 2: 3.0})
    assert paired(same, same).is_none
    assert not paired(same, pd.Series({0: 1.0, 1: 2.1, 2: 2.9})).is_none


@pytest.mark.parametrize(
    ("raw", "corrected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # Holm 1979, by hand
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([], []),
    ],
)
def test_holm_s_correction(raw, corrected):
    assert holm(raw) == pytest.approx(corrected)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_a_correction_keeps_the_order_and_lowers_nothing(p_values):
    found = holm(p_values)
    assert all(after >= before for before, after in zip(p_values, found, strict=True))
    ranked = sorted(range(len(found)), key=p_values.__getitem__)
    assert [found[i] for i in ranked] == sorted(found)


def test_front_holds_the_unsurpassed_points():
    #        cheap and bad, dear and good, dear and bad, the first again, as good for more
    costs, values = [1, 5, 4, 1, 9], [0.5, 0.9, 0.4, 0.5, 0.9]
    assert pareto(costs, values) == [True, True, False, True, False]
    assert pareto([1.0, 2.0], [-math.inf, -math.inf]) == [True, False]
    assert pareto([1.0, 1.0, 2.0], [0.5, 0.5, 0.5]) == [True, True, False]


# ----------------------------------------------------------------------- published numbers


def test_a_mean_is_written_with_its_interval():
    assert mean_and_interval(pd.Series([80.0, 90.0, 100.0]), 2) == "90.00 ± 24.84"
    assert mean_and_interval(pd.Series([80.0]), 1) == "80.0"
    assert mean_and_interval(pd.Series([], dtype=float), 1) == "–"


def test_cut_interval_is_written_out():
    near_one = pd.Series([0.9, 0.935, 0.97])
    assert measured("accuracy", near_one) == "93.50 [84.81, 100]"
    assert measured("accuracy", 1 - near_one) == "6.50 [0, 15.19]"
    assert measured("accuracy", pd.Series([0.2, 0.5, 0.8])) == "50.00 [0, 100]"
    assert measured_with_unit("accuracy", near_one) == "93.50 [84.81, 100] %"
    assert measured("error", near_one) == "0.9350 ± 0.0869"
    assert measured_difference("accuracy", -near_one) == "-93.50 [-100, -84.81]"
    assert measured_difference("error", pd.Series([0.1, 0.5, 0.9])) == "0.5000 ± 0.9937"
    assert mean_and_interval(pd.Series([1.0, 2.0, 3.0]), 2) == "2.00 [0, 4.48]"
    assert mean_and_interval(pd.Series([1.0, 2.0, 3.0]), 2, possible=ANY) == "2.00 ± 2.48"


def test_two_values_follow_their_mean_without_an_interval():
    assert mean_and_interval(pd.Series([2.0, 1.0]), 2) == "1.50 (1.00, 2.00)"
    assert measured_with_unit("accuracy", pd.Series([0.2, 0.8])) == "50.00 (20.00, 80.00) %"
    assert measured("accuracy", pd.Series([0.8, 0.8])) == "80.00 (all equal)"
    difference = paired(pd.Series([0.9, 0.8]), pd.Series([0.7, 0.7]))
    assert math.isfinite(difference.half_width)  # claims are judged by it
    assert math.isnan(difference.shown_half_width)
    three = paired(pd.Series([0.9, 0.8, 0.8]), pd.Series([0.7, 0.7, 0.7]))
    assert three.shown_half_width == three.half_width


def test_an_interval_of_differences_is_cut_beyond_a_hundred_points():
    assert signed_and_interval("accuracy", 0.101, 0.0025) == "+10.10 ± 0.25"
    assert signed_and_interval("accuracy", -0.3, 1.2) == "-30.00 [-100, 90.00]"
    assert signed_and_interval("accuracy", 0.3, math.nan) == "+30.00"
    assert signed_and_interval("error", 0.3, 1.2) == "+0.3000 ± 1.2000"
    assert signed_ends("accuracy", -1.5, 0.9) == "-100.00 to +90.00"
    assert signed_ends("error", -1.5, 0.9) == "-1.5000 to +0.9000"


def test_counts_that_agree_are_written_plainly():
    assert count_and_interval(pd.Series([8.0, 8.0])) == "8"
    assert count_and_interval(pd.Series([1234567.0])) == "1234567"
    assert count_and_interval(pd.Series([18.4348])) == "18.4"
    assert count_and_interval(pd.Series([27.0, 29.0])) == "28.0 (27.0, 29.0)"
    assert count_and_interval(pd.Series([math.nan])) == "–"


def test_small_and_large_means_have_three_digits():
    texts = [three_digits_and_interval(pd.Series([x])) for x in (0.000123456, 2.34567, 1234.5, 0.0)]
    assert texts == ["0.000123", "2.35", "1234", "0"]
    assert three_digits_and_interval(pd.Series([0.01, 0.02])) == "0.0150 (0.0100, 0.0200)"
    assert three_digits_and_interval(pd.Series([math.nan])) == "–"


def test_an_interval_of_twice_the_seeds_is_narrower_by_student_s_t():
    # t(0.975): 4.3027 with 2 degrees of freedom, 2.5706 with 5.
    assert width_with(6, 3) == pytest.approx(2.5706 / 6**0.5 / (4.3027 / 3**0.5), rel=1e-4)


def test_a_number_that_rounds_to_zero_has_no_minus():
    assert mean_and_interval(pd.Series([-0.001]), 2) == "0.00"
    assert (signed("accuracy", -1e-6), signed("mse", -1e-6)) == ("+0.00", "+0.0000")
    assert signed("accuracy", -0.01) == "-1.00"
