"""What accuracy costs: every cell by its headline metric, seconds and evaluations."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from nodebench.report.comparisons import by_seed
from nodebench.report.statistics import half_width, pareto
from nodebench.sweep import Sweep

COSTS: Mapping[str, str] = {
    "seconds": "seconds per epoch",
    "nfe": "evaluations per forward pass",
}


def frontier(sweep: Sweep, frame: pd.DataFrame, timed: pd.DataFrame) -> pd.DataFrame:
    """One row per cell of which a trial finished: mean `value`, its interval's `width`, costs.

    `seconds` are those of the timing pass on the machine where most cells were timed, if any was,
    else of the trainings; `nfe` is missing of a network without an ODE. `front_seconds` and
    `front_nfe` mark the cells of which none is better for less.
    """
    data = sweep.trials[0].spec.data
    seconds = _timed(frame, timed)
    rows = []
    for cell in dict.fromkeys(frame["cell"]):
        values = by_seed(frame, cell, data.headline)
        if values.empty:
            continue
        trained = by_seed(frame, cell, "epoch_s").mean()
        rows.append(
            {
                "cell": cell,
                "value": values.mean(),
                "width": half_width(values),
                "seconds": trained if seconds is None else seconds.get(cell),
                "nfe": by_seed(frame, cell, "nfe_forward").mean(),
            }
        )
    table = pd.DataFrame(rows, columns=["cell", "value", "width", *COSTS])
    sign = 1 if data.higher_is_better else -1
    for cost in COSTS:
        known = table[table[cost].notna()]
        marks = pareto(known[cost].tolist(), (sign * known["value"]).tolist())
        front = pd.Series(marks, index=known.index, dtype=bool)
        table[f"front_{cost}"] = front.reindex(table.index, fill_value=False)
    return table


def _timed(frame: pd.DataFrame, timed: pd.DataFrame) -> pd.Series[float] | None:
    """Seconds per epoch by cell, of one kind of machine; None if nothing was timed."""
    if timed.empty:
        return None
    machine = timed["machine"].mode().iloc[0]
    there = timed[timed["machine"] == machine].set_index("trial")["timed_epoch_s"]
    cells = frame.set_index("id")["cell"]
    found: pd.Series[float] = there.groupby(cells.reindex(there.index)).median()
    return found
