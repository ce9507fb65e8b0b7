"""Tables of cells beside the baseline, beside published numbers, and of claims, as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from nodebench.report import published
from nodebench.report.comparisons import Checked, Comparison
from nodebench.report.statistics import mean_and_interval, measured, unit
from nodebench.report.tables import NO_VALUE, column, whole
from nodebench.sweep import Sweep
from nodebench.trial_folder import FINISHED


def baseline(sweep: Sweep, found: Sequence[Comparison]) -> pd.DataFrame:
    """One row per cell that has a partner in the baseline: the difference and what it says."""
    metric = sweep.trials[0].spec.data.metric
    percent, digits = (100, 2) if metric == "accuracy" else (1, 4)
    rows = []
    for each in found:
        mean, low, high = (
            f"{percent * x:+.{digits}f}"
            for x in (each.difference.mean, each.difference.low, each.difference.high)
        )
        is_single = math.isnan(each.difference.low)
        rows.append(
            {
                "cell": each.cell,
                "against": each.baseline,
                f"difference{unit(metric)}": mean,
                "95 % interval": NO_VALUE if is_single else f"{low} to {high}",
                "effect d": NO_VALUE if is_single else f"{each.difference.effect:.2f}",
                "p (Holm)": NO_VALUE if math.isnan(each.p) else _p(each.p),
                "pairs": str(each.difference.n),
                "reading": each.reading,
            }
        )
    return pd.DataFrame(rows)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def claims(checked: Sequence[Checked]) -> pd.DataFrame:
    """One row per claim: what is said, by whom, what was found."""
    return pd.DataFrame(
        {
            "claim": each.claim.says,
            "source": each.claim.source or NO_VALUE,
            "here": each.result,
            "numbers": "; ".join(each.numbers) or NO_VALUE,
        }
        for each in checked
    )


def published_numbers(sweep: Sweep, frame: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """One row per published number of the sweep's cells: ours, theirs, and whether they match."""
    numbers: dict[tuple[str, str], tuple[published.Published, list[str]]] = {}
    for trial in sweep.trials:
        for entry in published.about(sweep.name, trial.spec):
            key = sweep.cell_label(trial), entry.what
            numbers.setdefault(key, (entry, []))[1].append(trial.id)
    rows = []
    for (cell, _), (entry, ids) in numbers.items():
        done = frame[frame["id"].isin(ids) & (frame["outcome"] == FINISHED)]
        values = _at_the_limit(judged, ids) if entry.under else column(done, entry.metric)
        values = values.dropna()
        reading = published.reading(entry, values, _obstacle(sweep, entry))
        rows.append(
            {
                "cell": cell,
                "what": entry.what,
                "ours": _ours(entry.metric, values),
                "n": str(len(values)),
                "published": str(entry),
                "difference": reading.difference,
                "reading": reading.word,
                "source": entry.source,
            }
        )
    return pd.DataFrame(rows)


def _obstacle(sweep: Sweep, entry: published.Published) -> str:
    """Why trials of a sweep cannot be compared with its study's."""
    if entry.metric == "parameters":
        return ""
    if sweep.name.endswith("-small"):
        return "the small form"
    return "the sweep was changed by `--set`" if sweep.is_changed else ""


def _ours(metric: str, values: pd.Series[float]) -> str:
    if metric == "test_accuracy":
        return measured("accuracy", values)
    return whole(values) if metric == "parameters" else mean_and_interval(values, 1)


def _at_the_limit(judged: pd.DataFrame, ids: list[str]) -> pd.Series[float]:
    """The headline metric of each trial under the finest solver."""
    if judged.empty:
        return pd.Series(dtype=float)
    return judged.loc[judged["trial"].isin(ids), "limit"].astype(float)
