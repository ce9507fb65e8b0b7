"""Tables of the costs and errors of gradients, as text."""

from __future__ import annotations

import math

import pandas as pd

from nodebench.report.analysis.formatting import NO_VALUE
from nodebench.report.analysis.gradients import ways
from nodebench.report.tables import three_digits


def ways_table(costs: pd.DataFrame) -> pd.DataFrame:
    """One row per gradient, over all problems and solvers: error, distance, memory, seconds."""
    if costs.empty:
        return costs
    return pd.DataFrame(
        {
            "gradient": row["way"],
            "exact": _exactness(row["way"], row["is_exact"]),
            "from backprop, fixed steps": _error(row["fixed"]),
            "adaptive steps": _error(row["adaptive"]),
            "error, median": _error(row["error"]),
            "error, at most": _error(row["worst"]),
            "× backprop's memory": _ratio(row["of_memory"]),
            "× backprop's seconds": _ratio(row["of_seconds"]),
            "failed": f"{row['failed']:.0f} of {row['n']}",
        }
        for row in ways(costs).to_dict("records")
    )


def memory_table(grown: pd.DataFrame) -> pd.DataFrame:
    """One row per gradient: megabytes by the number of steps, and the power of their growth.

    `grown` is the table of `gradients.memory_by_steps`.
    """
    counts = sorted(set(grown["steps"])) if len(grown) else []
    rows = []
    for way, group in grown.groupby("way", sort=False) if counts else ():
        by_steps = dict(zip(group["steps"], group["memory"], strict=True))
        cells = {f"MB, {n:g} steps": _megabytes(by_steps.get(n, math.nan)) for n in counts}
        rows.append({"gradient": way, **cells, "power": f"{group['power'].iloc[0]:.2f}"})
    return pd.DataFrame(rows)


def _exactness(way: str, is_exact: bool | None) -> str:
    if way == "backprop":
        return "by definition"
    return {True: "yes", False: "no", None: NO_VALUE}[is_exact]


def _error(value: float) -> str:
    return NO_VALUE if pd.isna(value) else f"{value:.1e}"


def _ratio(value: float) -> str:
    return NO_VALUE if pd.isna(value) else f"{float(f'{value:.2g}'):g}"


def _megabytes(value: float) -> str:
    return NO_VALUE if pd.isna(value) else three_digits(value / 1e6)
