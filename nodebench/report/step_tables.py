"""Tables of the steps that adaptive solvers take, as text: in training, and by test batch."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from nodebench.errors import TrialOutcome
from nodebench.report.analysis.columns import BUDGET, CELL, METHOD, OUTCOME
from nodebench.report.analysis.formatting import (
    NO_VALUE,
    count_and_interval,
    mean_and_interval,
    measured,
    samples_text,
    unit,
)
from nodebench.report.analysis.statistics import column
from nodebench.report.tables import CONFIGURATION

OF_SAMPLES = {
    "NFE of a sample: min": "nfe_sample_min",
    "mean": "nfe_sample_mean",
    "max": "nfe_sample_max",
}


def steps_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell with adaptive solves: steps in the last epoch of training.

    `frame` is the table of `frames.result_frame`.
    """
    if "steps_accepted" not in frame:
        return pd.DataFrame()
    done = frame[(frame[OUTCOME] == TrialOutcome.FINISHED) & frame["steps_accepted"].notna()]
    rows = [
        {CONFIGURATION: str(cell), **_steps(group, "nfe_forward"), "n": str(len(group))}
        for cell, group in done.groupby(CELL, sort=False)
    ]
    return _without_empty(pd.DataFrame(rows))


def batches_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, test solver, kind of step and batch size: steps, seconds, metric.

    `frame` is the table of `frames.batch_frame`. A step is that of a sample or of a batch. The
    number of test samples and the statistics of batch norm are shown if they vary.
    """
    if frame.empty:
        return frame
    varying = [
        name for name in ("test_size", "batch_norm") if frame[name].nunique(dropna=False) > 1
    ]
    keys = {CELL: CONFIGURATION, METHOD: "method", BUDGET: BUDGET, "step of": "step per",
            "batch_size": "batch size", **{name: name for name in varying}}  # fmt: skip
    frame = frame.assign(test_size=frame["test_size"].map(samples_text))
    rows = []
    for key, group in frame.groupby(list(keys), sort=False, dropna=False):
        done = group[group[OUTCOME] == TrialOutcome.FINISHED]
        metric = group["metric"].iloc[0]
        failed = Counter(group.loc[group[OUTCOME] != TrialOutcome.FINISHED, OUTCOME])
        value = measured(metric, column(done, "value").astype(float))
        milliseconds = 1e3 * column(done, "forward_s") / column(done, "samples_per_pass")
        rows.append(
            {
                **dict(zip(keys.values(), map(str, key), strict=True)),
                f"{metric}{unit(metric)}": ", ".join(
                    [value, *(f"{n} {o}" for o, n in failed.items())]
                ),
                **_steps(done, "nfe"),
                "ms/sample": mean_and_interval(milliseconds, 3),
                "n": str(len(done)),
            }
        )
    return _without_empty(pd.DataFrame(rows))


def _steps(done: pd.DataFrame, nfe: str) -> dict[str, str]:
    """Evaluations and steps per forward pass, and the spread of evaluations over samples."""
    counts = {"NFE": nfe, "accepted": "steps_accepted", "rejected": "steps_rejected", **OF_SAMPLES}
    return {name: _counted(column(done, each)) for name, each in counts.items()}


def _counted(values: pd.Series[float]) -> str:
    """Whole counts as such; means over batches or samples with one decimal."""
    is_whole = (values.dropna() % 1 == 0).all()
    return count_and_interval(values) if is_whole else mean_and_interval(values, 1)


def _without_empty(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=[name for name in table if (table[name] == NO_VALUE).all()])
