"""The cost of accuracy: every cell by its headline metric, seconds and evaluations."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from nodebench.report.analysis.baseline import by_seed
from nodebench.report.analysis.columns import CELL, TIMED_SECONDS
from nodebench.report.analysis.statistics import (
    interval_ends,
    pareto,
    possible_values,
    shown_half_width,
)
from nodebench.sweep import Sweep

COST_TITLES: Mapping[str, str] = {
    "seconds": "seconds per epoch",
    "nfe": "evaluations per forward pass",
}

DURING_TRAINING, ON_A_BUSY_MACHINE = "during training", "on a busy machine"
"""Why seconds are not comparable."""


def pareto_table(sweep: Sweep, frame: pd.DataFrame, *, is_busy: bool = False) -> pd.DataFrame:
    """One row per cell with a finished trial: mean `value`, its interval `low` to `high`, costs.

    `seconds` are those of the timing pass, on the machine with the most timings, or of training if
    there was none. `nfe` is missing for a network without an ODE. `front_seconds` and `front_nfe`
    mark the Pareto front of the cells on the same `data`, if there are several. Seconds of training
    give no front, nor do those of a timing pass on a machine that `is_busy`: `measured` says why
    they do not compare.
    """
    seconds = TIMED_SECONDS if TIMED_SECONDS in frame else "epoch_s"
    headline, seconds_of, nfe_of = (
        by_seed(frame, name) for name in (sweep.headline, seconds, "nfe_forward")
    )
    rows = [
        {
            CELL: cell,
            "data": data,
            "value": headline[cell].mean(),
            "width": shown_half_width(headline[cell]),
            "seconds": seconds_of[cell].mean(),
            "nfe": nfe_of[cell].mean(),
        }
        for cell, data in dict(zip(frame[CELL], frame["data.name"], strict=True)).items()
        if len(headline[cell])
    ]
    table = pd.DataFrame(rows, columns=[CELL, "data", "value", "width", *COST_TITLES])
    possible = possible_values(sweep.metric)
    table["low"], table["high"] = interval_ends(table["value"], table.pop("width"), possible)
    busy = ON_A_BUSY_MACHINE if is_busy else ""
    table["measured"] = busy if seconds == TIMED_SECONDS else DURING_TRAINING
    sign = 1 if sweep.higher_is_better else -1
    for cost in COST_TITLES:
        comparable = (cost == "nfe") | (table["measured"] == "")
        table[f"front_{cost}"] = False
        for _, known in table[table[cost].notna() & comparable].groupby("data"):
            if len(known) < 2:
                continue
            marks = pareto(known[cost].tolist(), (sign * known["value"]).tolist())
            table.loc[known.index, f"front_{cost}"] = marks
    return table
