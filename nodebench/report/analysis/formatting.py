"""Statistics as text."""

from __future__ import annotations

import math

import pandas as pd

from nodebench.report.analysis.statistics import alike, half_width

NO_VALUE = "–"


def mean_and_interval(values: pd.Series[float], digits: int, unit: str = "") -> str:
    """Mean ± half its confidence interval; only the mean for one value, a dash for none.

    Values that are all equal have no interval, since they do not show how much others would vary.
    """
    values = values.dropna()
    if values.empty:
        return NO_VALUE
    mean = number(values.mean(), digits)
    if alike(values):
        return f"{mean}{unit} (all equal)"
    interval = "" if len(values) == 1 else f" ± {half_width(values):.{digits}f}"
    return f"{mean}{interval}{unit}"


def three_digits_and_interval(values: pd.Series[float]) -> str:
    """Like `mean_and_interval`, with three significant digits of a mean below 100."""
    mean = abs(values.mean())
    digits = 2 - math.floor(math.log10(mean)) if mean > 0 else 0  # NaN for no values
    return mean_and_interval(values, max(0, digits))


def count_and_interval(values: pd.Series[float]) -> str:
    """Like `mean_and_interval`, for counts; a plain number if all are the same."""
    values = values.dropna()
    return f"{values.iloc[0]:g}" if values.nunique() == 1 else mean_and_interval(values, 1)


def magnitude(values: pd.Series[float]) -> str:
    """The median of errors that may lie orders of magnitude apart; a dash for none."""
    values = values.dropna()
    return f"{values.median():.1e}" if len(values) else NO_VALUE


def measured(metric: str, values: pd.Series[float]) -> str:
    """Mean and interval of a metric that models are judged by; accuracies in percent."""
    scale, digits = scale_and_digits(metric)
    return mean_and_interval(values * scale, digits)


def measured_with_unit(metric: str, values: pd.Series[float]) -> str:
    """The same, as a sentence has it."""
    scale, digits = scale_and_digits(metric)
    return mean_and_interval(values * scale, digits, unit(metric))


def scale_and_digits(metric: str) -> tuple[float, int]:
    """The factor and the decimal places with which a metric that models are judged by is shown."""
    return (100.0, 2) if metric == "accuracy" else (1.0, 4)


def number(value: float, digits: int) -> str:
    """One number, without a minus sign if it rounds to zero; a dash for nan."""
    return NO_VALUE if math.isnan(value) else f"{value:z.{digits}f}"


def unit(metric: str) -> str:
    """The unit that follows a metric's name in a heading."""
    return " %" if metric == "accuracy" else ""


def signed(metric: str, difference: float) -> str:
    """A difference of a metric that models are judged by, with its sign; accuracies in percent."""
    scale, digits = scale_and_digits(metric)
    return f"{scale * difference:+z.{digits}f}"


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
