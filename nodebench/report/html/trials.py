"""The table of single trials in report.html; the Markdown page leaves them to results.csv."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from nodebench.report.analysis.columns import CELL, TIMED_SECONDS, TRIAL
from nodebench.report.analysis.formatting import NO_VALUE, count, number, scale_and_digits, unit
from nodebench.report.result_tables import MOST_SETTINGS
from nodebench.report.tables import CONFIGURATION, cell_text
from nodebench.sweep import Sweep


def trials_table(sweep: Sweep, results: pd.DataFrame) -> pd.DataFrame:
    """One row per trial, as text: id, varying settings, seed, outcome, and main numbers."""
    settings = {p: h for p, h in sweep.headings.items() if p in results}
    if not 0 < len(settings) <= MOST_SETTINGS:
        settings = {CELL: CONFIGURATION}
    rows = [
        {
            "trial": row[TRIAL],
            **{heading: cell_text(row[path]) for path, heading in settings.items()},
            "seed": str(row["seed"]),
            "outcome": row["ending"],
            **_numbers(sweep.metric, sweep.headline, row),
        }
        for row in results.to_dict("records")
    ]
    table = pd.DataFrame(rows)
    return table.drop(columns=[name for name in table if (table[name] == NO_VALUE).all()])


def _numbers(metric: str, headline: str, row: Mapping[Any, Any]) -> dict[str, str]:
    """Heading -> text of a trial's metric, verdict and costs."""
    scale, digits = scale_and_digits(metric)
    timed, trained, nfe = (_known(row, name) for name in (TIMED_SECONDS, "epoch_s", "nfe_forward"))
    return {
        f"{metric.replace('_', ' ')}{unit(metric)}": number(scale * _known(row, headline), digits),
        f"drop{unit(metric)}": number(scale * _known(row, "drop"), digits),
        "verdict": cell_text(row.get("verdict")),
        "s/epoch": number(trained if math.isnan(timed) else timed, 2),
        "NFE": count(nfe),
    }


def _known(row: Mapping[Any, Any], name: str) -> float:
    """A number of a row; nan if the row has none."""
    value = row.get(name)
    return math.nan if value is None else float(value)
