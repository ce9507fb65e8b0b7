"""The table of single trials, which report.html has and the Markdown page leaves to results.csv."""

from __future__ import annotations

import pandas as pd

from nodebench.report.analysis.columns import CELL, TIMED_SECONDS, TRIAL
from nodebench.report.analysis.formatting import (
    NO_VALUE,
    count_and_interval,
    mean_and_interval,
    measured,
    unit,
)
from nodebench.report.analysis.statistics import column
from nodebench.report.result_tables import MOST_SETTINGS
from nodebench.report.tables import CONFIGURATION, cell_text
from nodebench.sweep import Sweep


def trials_table(sweep: Sweep, results: pd.DataFrame) -> pd.DataFrame:
    """One row per trial, as text: id, what varies, seed, ending, and its main numbers."""
    settings = {p: h for p, h in sweep.headings.items() if p in results}
    if not 0 < len(settings) <= MOST_SETTINGS:
        settings = {CELL: CONFIGURATION}
    rows = [
        {
            "trial": row[TRIAL],
            **{heading: cell_text(row[path]) for path, heading in settings.items()},
            "seed": str(row["seed"]),
            "outcome": row["ending"],
            **_numbers(sweep.metric, sweep.headline, pd.DataFrame([row])),
        }
        for row in results.to_dict("records")
    ]
    table = pd.DataFrame(rows)
    return table.drop(columns=[name for name in table if (table[name] == NO_VALUE).all()])


def _numbers(metric: str, headline: str, row: pd.DataFrame) -> dict[str, str]:
    """Heading -> text of a trial's metric, verdict and costs."""
    verdict = column(row, "verdict").dropna()
    return {
        f"{metric.replace('_', ' ')}{unit(metric)}": measured(metric, column(row, headline)),
        f"drop{unit(metric)}": measured(metric, column(row, "drop").astype(float)),
        "verdict": str(verdict.iloc[0]) if len(verdict) else NO_VALUE,
        "s/epoch": mean_and_interval(_seconds(row), 2),
        "NFE": count_and_interval(column(row, "nfe_forward")),
    }


def _seconds(row: pd.DataFrame) -> pd.Series[float]:
    """Timed alone if it was, else as trained."""
    timed = column(row, TIMED_SECONDS).dropna()
    return timed if len(timed) else column(row, "epoch_s")
