"""The tables of a report, as text, from the tidy tables of `frames`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from nodebench.report.analysis import published
from nodebench.report.analysis.columns import OUTCOME, TRIAL
from nodebench.report.analysis.formatting import (
    NO_VALUE,
    count_and_interval,
    mean_and_interval,
    measured,
    unit,
    whole,
)
from nodebench.report.analysis.statistics import column
from nodebench.store.result import BUSY, FINISHED
from nodebench.sweep import Sweep


def main_table(
    sweep: Sweep, frame: pd.DataFrame, judged: pd.DataFrame, timed: pd.DataFrame
) -> pd.DataFrame:
    """One row per cell of the sweep, seeds joined: the main table of a report, as text.

    A cell's published number, if there is one, stands beside ours, and the verdict on its models
    if they were evaluated under other solvers. Metrics and costs are means ± 95 % confidence
    intervals over the seeds that finished; seconds per epoch are those of the timing pass, or
    of training where that is all there is.
    """
    trials = {trial.id: trial for trial in sweep.trials}
    metrics = list(dict.fromkeys(trial.spec.data.metric for trial in sweep.trials))
    rows = []
    for key, group in cells(sweep, frame):
        done = group[group[OUTCOME] == FINISHED]
        spec = trials[group[TRIAL].iloc[0]].spec
        rows.append(
            {
                **key,
                **_metric_columns("test_", done, metrics),
                "n": f"{len(done)} of {len(group)}" if len(done) < len(group) else f"{len(done)}",
                "published": published.published_text(sweep.name, spec) or NO_VALUE,
                **_verdict_columns(judged, done[TRIAL]),
                **_metric_columns("val_", done, metrics),
                **_metric_columns("train_", done, metrics),
                **_metric_columns("best_test_", done, metrics),
                "parameters": whole(column(done, "parameters")),
                **_seconds_columns(done, timed),
                "NFE forward": count_and_interval(column(done, "nfe_forward")),
                "NFE backward": count_and_interval(column(done, "nfe_backward")),
                **_regularizer_columns(done),
                **_adaptation_columns(done),
                "outcomes": _outcomes(group),
            }
        )
    table = pd.DataFrame(rows).fillna(NO_VALUE)
    always = {*_headings(sweep).values(), *_metric_columns("test_", frame[:0], metrics)}
    optional = [name for name in table.columns if name not in always]
    return table.drop(columns=[name for name in optional if (table[name] == NO_VALUE).all()])


REGULARIZER = "regularizer_"
"""What the names of regularizers' terms begin with, among the metrics of an epoch."""

HEADINGS = {
    "test_": "test {}",
    "val_": "validation {}",
    "train_": "train {}",
    "best_test_": "best epoch {} †",
}


def _metric_columns(prefix: str, done: pd.DataFrame, metrics: Sequence[str]) -> dict[str, str]:
    """Heading -> mean and spread of what models are judged by."""
    return {
        HEADINGS[prefix].format(metric + unit(metric)): measured(
            metric, column(done, prefix + metric)
        )
        for metric in metrics
    }


def _verdict_columns(judged: pd.DataFrame, ids: pd.Series[str]) -> dict[str, str]:
    """What is lost under a finer solver, and the verdict, on the models of a cell."""
    found = judged[judged[TRIAL].isin(ids)] if len(judged) else judged
    if judged.empty:
        return {}
    metric = judged["metric"].iloc[0]
    if found.empty:  # keeps the columns in their place
        return {f"drop{unit(metric)}": NO_VALUE, "is it an ODE?": NO_VALUE}
    drop = measured(metric, found["drop"].astype(float))
    return {f"drop{unit(metric)}": drop, "is it an ODE?": verdict_words(found["verdict"])}


def verdict_words(verdicts: pd.Series[str]) -> str:
    """The verdict of all seeds, or each with its count."""
    counts = Counter(verdicts)
    if len(counts) == 1:
        return str(verdicts.iloc[0])
    return ", ".join(f"{count} {word}" for word, count in counts.most_common())


def timed_busy(timed: pd.DataFrame) -> bool:
    """Whether a machine was not idle when a timing pass began on it."""
    return bool((timed["load_before"] > BUSY).any())


def _seconds_columns(done: pd.DataFrame, timed: pd.DataFrame) -> dict[str, str]:
    """Seconds per epoch alone on each kind of machine; the trainings' own if there is no such."""
    if timed.empty:
        return {"s/epoch ‡": mean_and_interval(column(done, "epoch_s"), 2)}
    found = timed[timed[TRIAL].isin(done[TRIAL])]
    machines = list(dict.fromkeys(timed["machine"]))
    where = {machine: f" on {machine}" if len(machines) > 1 else "" for machine in machines}
    heading = "s/epoch{} ‡" if timed_busy(timed) else "s/epoch{}"
    seconds = {m: found.loc[found["machine"] == m, "timed_epoch_s"] for m in machines}
    return {
        heading.format(where[machine]): three_digits(values.median()) if len(values) else NO_VALUE
        for machine, values in seconds.items()
    }


def three_digits(value: float) -> str:
    """1234.5 as 1230, without an exponent."""
    return f"{float(f'{value:.3g}'):g}"


def timings_table(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per timed cell and kind of machine: what a training step takes, as text.

    `frame` is the table of `frames.timings`.
    """
    rows = [
        {
            **key,
            "machine": row["machine"],
            "ms/step": three_digits(1e3 * row["step_s"]),
            "least – most": " – ".join(
                three_digits(1e3 * row[name]) for name in ("step_s_least", "step_s_most")
            ),
            "s/epoch": three_digits(row["timed_epoch_s"]),
            "NFE forward": cell_text(row.get("nfe_forward")),
            "NFE backward": cell_text(row.get("nfe_backward")),
            "rounds × steps": f"{row['rounds']} × {row['steps']}",
            "load before": f"{row['load_before']:.1f}",
        }
        for key, group in cells(sweep, frame)
        for row in group.to_dict("records")
    ]
    return pd.DataFrame(rows)


def _adaptation_columns(done: pd.DataFrame) -> dict[str, str]:
    """Where the adaptation of a solver ended, and what it took over the whole training."""
    adapted = done.dropna(subset=["nfe_adaptation"]) if "nfe_adaptation" in done else done[:0]
    at_limit = int(column(adapted, "at_step_limit").fillna(0).sum())
    note = f", {at_limit} at the limit" if at_limit else ""
    return {
        "NFE over training": mean_and_interval(column(adapted, "nfe_forward_mean"), 1),
        "final step size": mean_and_interval(column(adapted, "step_size"), 4) + note,
        "final tol": ", ".join(f"{tol:.2g}" for tol in column(adapted, "tol").dropna()) or NO_VALUE,
    }


def _regularizer_columns(done: pd.DataFrame) -> dict[str, str]:
    """Each regularizer's term in the last epoch, without its weight, and what they all took."""
    terms = [name for name in done.columns if name.startswith(REGULARIZER)]
    return {
        "NFE of regularizers": count_and_interval(column(done, "nfe_regularization")),
        **{
            f"{name.removeprefix(REGULARIZER)} term": mean_and_interval(column(done, name), 3)
            for name in terms
        },
    }


def failures(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """The trials without a finished training, and why."""
    unfinished = frame[frame[OUTCOME] != FINISHED]
    names = {trial.id: sweep.label(trial) for trial in sweep.trials}
    return pd.DataFrame(
        {
            "trial": unfinished[TRIAL],
            "what": [names[i] for i in unfinished[TRIAL]],
            "outcome": unfinished["ending"],
            "reason": unfinished["reason"],
        }
    )


def cell_text(value: Any) -> str:
    """A setting as a table shows it: 10.0 as 10, nothing as a dash."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return NO_VALUE
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | tuple):
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
    """The settings that distinguish cells -> their headings."""
    return {path: sweep.heading(path) for path in sweep.varying or ["model.name"]}


def _outcomes(group: pd.DataFrame) -> str:
    counts = Counter(group["ending"])
    if set(counts) == {FINISHED}:
        return FINISHED
    return ", ".join(f"{count} {ending}" for ending, count in counts.items())
