"""Functions that the tables of a report share, and its smaller tables."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from nodebench.errors import TrialOutcome
from nodebench.report.analysis.columns import CELL, OUTCOME, TIMED_SECONDS, TRIAL
from nodebench.report.analysis.formatting import NO_VALUE
from nodebench.sweep import Sweep

CONFIGURATION = "configuration"
"""The heading of the column with the cells' labels."""


def verdict_words(verdicts: pd.Series[str]) -> str:
    """The verdict if all seeds agree, otherwise each verdict with its count."""
    counts = Counter(verdicts)
    if len(counts) == 1:
        return str(verdicts.iloc[0])
    return ", ".join(f"{count} {word}" for word, count in counts.most_common())


def three_digits(value: float) -> str:
    """A number with three significant digits and no exponent: 1234.5 as 1230."""
    return f"{float(f'{value:.3g}'):.15g}"


def megabytes(counts: pd.Series[float]) -> str:
    """The median of numbers of bytes, in MB; a dash for none."""
    known = counts.dropna()
    return three_digits(known.median() / 1e6) if len(known) else NO_VALUE


def timings_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per timed configuration and kind of machine: the cost of a training step, as text.

    `frame` is the table of `frames.timing_frame`.
    """
    rows = [
        {
            CONFIGURATION: row[CELL],
            "machine": row["machine"],
            "ms/step": three_digits(1e3 * row["step_s"]),
            "fastest – slowest": " – ".join(
                three_digits(1e3 * row[name]) for name in ("step_s_least", "step_s_most")
            ),
            "s/epoch": three_digits(row[TIMED_SECONDS]),
            "MB/step": megabytes(pd.Series([row.get("step_memory_bytes")], dtype=float)),
            "NFE forward": cell_text(row.get("nfe_forward")),
            "NFE backward": cell_text(row.get("nfe_backward")),
            "rounds × steps": f"{row['rounds']} × {row['steps']}",
            "load before": f"{row['load_before']:.1f}",
        }
        for row in frame.to_dict("records")
    ]
    table = pd.DataFrame(rows)
    return table.drop(columns=[name for name in table if (table[name] == NO_VALUE).all()])


def failures(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """The trials without a finished training, and why."""
    unfinished = frame[frame[OUTCOME] != TrialOutcome.FINISHED]
    names = {trial.id: sweep.label(trial) for trial in sweep.trials}
    return pd.DataFrame(
        {
            "trial": unfinished[TRIAL],
            CONFIGURATION: [names[i] for i in unfinished[TRIAL]],
            "outcome": unfinished["ending"],
            "reason": unfinished["reason"],
        }
    )


def cell_text(value: Any) -> str:
    """A setting as a table shows it: 10.0 as 10, 1e30 as 1e+30, a missing value as a dash."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return NO_VALUE
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        return str(int(value))
    if isinstance(value, (list, tuple)):
        return ", ".join(map(cell_text, value)) or NO_VALUE
    return str(value)


def cells(sweep: Sweep, frame: pd.DataFrame) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """(heading -> value, rows) of every cell, in the plan's order."""
    if frame.empty:
        return []
    headings = _headings(sweep)
    return [
        (dict(zip(headings.values(), map(cell_text, key), strict=True)), group)
        for key, group in frame.groupby(list(headings), dropna=False, sort=False)
    ]


def _headings(sweep: Sweep) -> dict[str, str]:
    """The settings that distinguish configurations -> their headings."""
    return sweep.headings or {"model.name": "model"}
