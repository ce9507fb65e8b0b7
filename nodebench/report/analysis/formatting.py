"""Statistics as text."""

from __future__ import annotations

import math

import pandas as pd

from nodebench.report.analysis.statistics import (
    ANY,
    FEWEST_SEEDS,
    NOT_NEGATIVE,
    Bounds,
    alike,
    half_width,
    is_share,
    possible_differences,
    possible_values,
)

NO_VALUE = "–"


def mean_and_interval(
    values: pd.Series[float], digits: int, unit: str = "", possible: Bounds = NOT_NEGATIVE
) -> str:
    """Mean ± half its confidence interval; only the mean for one value, a dash for none.

    Two values follow their mean, `93.50 (90.00, 97.00)`, since their interval would say nothing.
    Values that are all equal have no interval, since they do not show how much others would vary.
    Values are not negative unless `possible` says so.
    """
    values = values.dropna()
    if values.empty:
        return NO_VALUE
    if alike(values):
        return f"{number(values.mean(), digits)}{unit} (all equal)"
    if 1 < len(values) < FEWEST_SEEDS:
        every = ", ".join(number(value, digits) for value in sorted(values))
        return f"{number(values.mean(), digits)} ({every}){unit}"
    return interval_text(values.mean(), half_width(values), digits, possible) + unit


def interval_text(mean: float, width: float, digits: int, possible: Bounds = ANY) -> str:
    """`91.00 ± 2.50`, or `93.50 [84.10, 100]` if ± would reach beyond the `possible` values.

    Cutting an interval there does not change how often it contains the true mean, which is a
    possible value. A `width` of nan stands for no interval.
    """
    text = number(mean, digits)
    if math.isnan(width):
        return text
    low, high = round(mean - width, digits), round(mean + width, digits)
    if possible[0] <= low and high <= possible[1]:
        return f"{text} ± {width:.{digits}f}"
    lowest, highest = (f"{limit:g}" for limit in possible)
    start = number(low, digits) if low >= possible[0] else lowest
    end = number(high, digits) if high <= possible[1] else highest
    return f"{text} [{start}, {end}]"


def number_and_interval(in_percent: bool, mean: float, width: float, possible: Bounds) -> str:
    """Any metric's mean with its interval, in three digits unless it is `in_percent`."""
    if in_percent:
        return interval_text(100 * mean, 100 * width, 2, scaled(possible, 100))
    if math.isnan(width) and mean and not 1e-4 <= abs(mean) < 1e9:
        return f"{mean:.3g}"
    scale = abs(width if width > 0 else mean)
    digits = max(0, 2 - math.floor(math.log10(scale))) if scale else 0
    return interval_text(mean, width, digits, possible)


def three_digits_and_interval(values: pd.Series[float]) -> str:
    """Like `mean_and_interval`, with three significant digits of a mean below 100."""
    mean = abs(values.mean())
    digits = 2 - math.floor(math.log10(mean)) if mean > 0 else 0  # NaN for no values
    return mean_and_interval(values, max(0, digits))


def count_and_interval(values: pd.Series[float]) -> str:
    """Like `mean_and_interval`, for counts; a plain number if all are the same."""
    values = values.dropna()
    if values.nunique() != 1:
        return mean_and_interval(values, 1)
    return count(float(values.iloc[0]))


def count(value: float) -> str:
    """A count, or a mean of counts with one decimal; a dash for nan."""
    return number(value, 0 if value.is_integer() else 1)


def magnitude(values: pd.Series[float]) -> str:
    """The median of errors that may lie orders of magnitude apart; a dash for none."""
    values = values.dropna()
    return f"{values.median():.1e}" if len(values) else NO_VALUE


def measured(metric: str, values: pd.Series[float]) -> str:
    """Mean and interval of a metric that models are judged by; accuracies in percent."""
    return _measured(metric, values, possible_values(metric))


def measured_with_unit(metric: str, values: pd.Series[float]) -> str:
    """The same, as a sentence has it."""
    return _measured(metric, values, possible_values(metric), unit(metric))


def measured_difference(metric: str, values: pd.Series[float]) -> str:
    """Mean and interval of differences of such a metric."""
    return _measured(metric, values, possible_differences(metric))


def _measured(metric: str, values: pd.Series[float], possible: Bounds, unit: str = "") -> str:
    scale, digits = scale_and_digits(metric)
    return mean_and_interval(values * scale, digits, unit, scaled(possible, scale))


def scaled(possible: Bounds, scale: float) -> Bounds:
    """The range of values that are multiplied by a factor."""
    return scale * possible[0], scale * possible[1]


def scale_and_digits(metric: str) -> tuple[float, int]:
    """The factor and the decimal places with which a metric that models are judged by is shown."""
    return (100.0, 2) if metric == "accuracy" else (1.0, 4)


def number(value: float, digits: int) -> str:
    """One number, without a minus sign if it rounds to zero; a dash for nan."""
    return NO_VALUE if math.isnan(value) else f"{value:z.{digits}f}"


def unit(metric: str) -> str:
    """The unit that follows a metric's name in a heading."""
    return " %" if is_share(metric) else ""


def signed(metric: str, difference: float) -> str:
    """A difference of a metric that models are judged by, with its sign; accuracies in percent."""
    scale, digits = scale_and_digits(metric)
    return f"{scale * difference:+z.{digits}f}"


def signed_and_interval(metric: str, mean: float, width: float) -> str:
    """A mean difference with its sign, and its interval; `width` is half of that, or nan."""
    scale, digits = scale_and_digits(metric)
    possible = scaled(possible_differences(metric), scale)
    text = interval_text(scale * mean, scale * width, digits, possible)
    return text if text.startswith("-") else f"+{text}"


def differences_text(differences: pd.Series[float], width: float, form: str) -> str:
    """The mean of differences, ± `width` unless it is nan; two differences instead follow it."""
    if differences.empty:
        return NO_VALUE
    text = f"{differences.mean():+z{form}}"
    if math.isnan(width):
        return text
    if len(differences) < FEWEST_SEEDS:
        return f"{text} ({', '.join(f'{each:+z{form}}' for each in sorted(differences))})"
    return f"{text} ± {width:{form}}"


def signed_ends(metric: str, low: float, high: float) -> str:
    """The ends of a difference's interval, `-1.20 to +3.40`, cut where no difference can be."""
    lowest, highest = possible_differences(metric)
    return f"{signed(metric, max(low, lowest))} to {signed(metric, min(high, highest))}"


def margin_text(metric: str, margin: float) -> str:
    """A margin of a metric that models are judged by; for accuracies, in percentage points."""
    if metric != "accuracy":
        return f"{margin:g}"
    points = f"{100 * margin:g}"
    return f"{points} percentage point{'' if points == '1' else 's'}"


def probability(p: float) -> str:
    """A p-value; a dash if nothing was tested."""
    if math.isnan(p):
        return NO_VALUE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def whole(values: pd.Series[float]) -> str:
    """The different values of a count, with thousands separators."""
    counts = sorted(set(values.dropna().astype(int)))
    return " / ".join(f"{count:,}" for count in counts) or NO_VALUE


def samples_text(samples: float | None) -> str:
    """The number of test samples on which a point was evaluated, or `all`."""
    return "all" if samples is None or pd.isna(samples) else f"{samples:.0f}"
