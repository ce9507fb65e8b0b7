"""Statistics over seeds."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from nodebench.data_settings import Dataset


@dataclass(frozen=True)
class Headline:
    """What a data set is judged by, and how a table writes it: accuracies in percent."""

    metric: str

    @classmethod
    def of(cls, data: Dataset) -> Headline:
        """That of a data set."""
        return cls(data.metric)

    @property
    def unit(self) -> str:
        """What follows the name in a heading."""
        return " %" if self.metric == "accuracy" else ""

    def text(self, values: pd.Series[float]) -> str:
        """Mean and spread."""
        if self.metric == "accuracy":
            return mean_and_spread(values * 100, 2)
        return mean_and_spread(values, 4)


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
