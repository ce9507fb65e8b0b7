"""Statistics over seeds."""

from __future__ import annotations

import pandas as pd


def mean_and_spread(values: pd.Series[float], digits: int) -> str:
    """Mean ± sample standard deviation; the mean alone of one value, a dash for none."""
    values = values.dropna()
    if values.empty:
        return "–"
    mean = f"{values.mean():.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {values.std(ddof=1):.{digits}f}"


def count_and_spread(values: pd.Series[float]) -> str:
    """The same for counts, which are written plainly where they are all the same."""
    values = values.dropna()
    return f"{values.iloc[0]:g}" if values.nunique() == 1 else mean_and_spread(values, 1)


def magnitude(values: pd.Series[float]) -> str:
    """The median of errors that may lie orders of magnitude apart; a dash for none."""
    values = values.dropna()
    return f"{values.median():.1e}" if len(values) else "–"


def measured(metric: str, values: pd.Series[float]) -> str:
    """Mean and spread of a metric that models are judged by: accuracies in percent."""
    if metric == "accuracy":
        return mean_and_spread(values * 100, 2)
    return mean_and_spread(values, 4)


def unit(metric: str) -> str:
    """What follows a metric's name in a heading."""
    return " %" if metric == "accuracy" else ""
