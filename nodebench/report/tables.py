"""The tables of a report, as text, from the tidy tables of `frames`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from nodebench.report import published
from nodebench.report.statistics import count_and_spread, mean_and_spread, measured, unit
from nodebench.store import FINISHED
from nodebench.sweep import Sweep
from nodebench.vocabulary import METHODS

NO_VALUE = "–"


def summary(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell of the sweep, seeds joined: the main table of a report, as text.

    A cell's published number, if there is one, stands beside ours. Metrics and costs are means ±
    sample standard deviations over the seeds that finished.
    """
    trials = {trial.id: trial for trial in sweep.trials}
    metrics = list(dict.fromkeys(trial.spec.data.metric for trial in sweep.trials))
    rows = []
    for key, group in _cells(sweep, frame):
        done = group[group["outcome"] == FINISHED]
        spec = trials[group["id"].iloc[0]].spec
        rows.append(
            {
                **key,
                **_judged("test_", done, metrics),
                "n": f"{len(done)} of {len(group)}" if len(done) < len(group) else f"{len(done)}",
                "published": published.shown(sweep.name, spec) or NO_VALUE,
                **_judged("val_", done, metrics),
                **_judged("train_", done, metrics),
                **_judged("best_test_", done, metrics),
                "parameters": _whole(_column(done, "parameters")),
                "s/epoch ‡": mean_and_spread(_column(done, "epoch_s"), 2),
                "NFE forward": count_and_spread(_column(done, "nfe_forward")),
                "NFE backward": count_and_spread(_column(done, "nfe_backward")),
                **_adapted(done),
                "outcomes": _outcomes(group),
            }
        )
    table = pd.DataFrame(rows)
    optional = table.columns[len(key) + len(metrics) :]
    return table.drop(columns=[c for c in optional if (table[c] == NO_VALUE).all()])


HEADINGS = {
    "test_": "test {}",
    "val_": "validation {}",
    "train_": "train {}",
    "best_test_": "best epoch {} †",
}


def _judged(prefix: str, done: pd.DataFrame, metrics: Sequence[str]) -> dict[str, str]:
    """Heading -> mean and spread of what models are judged by."""
    return {
        HEADINGS[prefix].format(metric + unit(metric)): measured(
            metric, _column(done, prefix + metric)
        )
        for metric in metrics
    }


def _adapted(done: pd.DataFrame) -> dict[str, str]:
    """Where the adaptation of a solver ended, and what it took over the whole training."""
    adapted = done.dropna(subset=["nfe_adaptation"]) if "nfe_adaptation" in done else done[:0]
    at_limit = int(_column(adapted, "at_step_limit").fillna(0).sum())
    note = f", {at_limit} at the limit" if at_limit else ""
    return {
        "NFE over training": mean_and_spread(_column(adapted, "nfe_forward_mean"), 1),
        "final step size": mean_and_spread(_column(adapted, "step_size"), 4) + note,
        "final tol": ", ".join(f"{tol:.2g}" for tol in _column(adapted, "tol").dropna())
        or NO_VALUE,
    }


def published_numbers(sweep: Sweep, frame: pd.DataFrame, evaluated: pd.DataFrame) -> pd.DataFrame:
    """One row per published number of the sweep's cells: ours, theirs, and where it stands."""
    numbers: dict[tuple[str, str], tuple[published.Published, list[str]]] = {}
    for trial in sweep.trials:
        for entry in published.about(sweep.name, trial.spec):
            key = sweep.cell_label(trial), entry.what
            numbers.setdefault(key, (entry, []))[1].append(trial.id)
    rows = []
    for (cell, _), (entry, ids) in numbers.items():
        done = frame[frame["id"].isin(ids) & (frame["outcome"] == FINISHED)]
        values = _at_the_limit(evaluated, ids) if entry.under else _column(done, entry.metric)
        rows.append(
            {
                "cell": cell,
                "what": entry.what,
                "ours": _ours(entry.metric, values),
                "n": str(values.notna().sum()),
                "published": str(entry),
                "source": entry.source,
            }
        )
    return pd.DataFrame(rows)


def _ours(metric: str, values: pd.Series[float]) -> str:
    if metric == "test_accuracy":
        return measured("accuracy", values)
    return _whole(values) if metric == "parameters" else mean_and_spread(values, 1)


def _at_the_limit(evaluated: pd.DataFrame, ids: list[str]) -> pd.Series[float]:
    """The accuracy of each trial at its finest fixed-step point: the highest order, most steps."""
    if evaluated.empty:
        return pd.Series(dtype=float)
    done = evaluated[evaluated["trial"].isin(ids) & (evaluated["outcome"] == FINISHED)]
    # A tolerance does not say how fine its solve is beside that of a number of steps.
    fixed = done[done["test.method"].map(lambda method: METHODS[method].kind == "fixed")]
    order = fixed["test.method"].map(lambda method: METHODS[method].order)
    finest = fixed.assign(order=order).sort_values(["order", "nfe"]).groupby("trial").last()
    return _column(finest, "value")


def robustness(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell and test method, one column per budget: the headline metric, as text.

    A column is a number of evaluations (`NFE 32`), summed over ODE blocks, for methods with a
    fixed number of stages, a number of steps for other methods on a grid, a multiple of the
    training step size (`h × 0.5`) where the sweep asks for such, else a tolerance. `n`
    counts the seeds of a row; a mean over fewer of them says so. `test_size` is shown if it varies.
    """
    columns = [*sweep.varying, "test.method"]
    if frame["test_size"].nunique(dropna=False) > 1:
        columns.append("test_size")
        frame = frame.assign(test_size=[_size(size) for size in frame["test_size"]])
    # A setting that tells cells apart may be one that no evaluated trial has.
    frame = frame.reindex(columns=frame.columns.union(columns, sort=False))
    # A tolerance and a multiple of the training tolerance can be the same, which counts once.
    frame = frame.drop_duplicates(["trial", "test.method", "test_size", "budget"])
    budgets = sorted(set(frame["budget"]))
    rows = []
    for key, group in frame.groupby(columns, dropna=False, sort=False):
        row = {sweep.heading(name): shown(v) for name, v in zip(columns, key, strict=True)}
        n = group["trial"].nunique()
        values = {str(b): _headline_values(group[group["budget"] == b], n) for b in budgets}
        rows.append({**row, "n": str(n), **values})
    return pd.DataFrame(rows)


def _size(test_size: float | None) -> str:
    return "all" if test_size is None or pd.isna(test_size) else shown(test_size)


def _headline_values(points: pd.DataFrame, n: int) -> str:
    """Mean and spread over the points that finished, and how many of n did, if not all."""
    if points.empty:
        return NO_VALUE
    text = measured(points["metric"].iloc[0], points["value"].astype(float))
    finished = int((points["outcome"] == FINISHED).sum())
    if 0 < finished < n:
        text += f" ({finished} of {n})"
    failed = Counter(points.loc[points["outcome"] != FINISHED, "outcome"])
    return ", ".join([text, *(f"{count} {name}" for name, count in failed.items())])


def failures(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """The trials without a finished training, and why."""
    unfinished = frame[frame["outcome"] != FINISHED]
    names = {trial.id: sweep.label(trial) for trial in sweep.trials}
    return pd.DataFrame(
        {
            "trial": unfinished["id"],
            "what": [names[i] for i in unfinished["id"]],
            "outcome": unfinished["ending"],
            "reason": unfinished["reason"],
        }
    )


def shown(value: Any) -> str:
    """A setting as a table shows it: 10.0 as 10, nothing as a dash."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return NO_VALUE
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _cells(sweep: Sweep, frame: pd.DataFrame) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """(heading -> value, rows) of every cell, in the plan's order."""
    columns = sweep.varying or ["model.name"]
    headings = [sweep.heading(path) for path in columns]
    return [
        (dict(zip(headings, map(shown, key), strict=True)), group)
        for key, group in frame.groupby(columns, dropna=False, sort=False)
    ]


def _column(frame: pd.DataFrame, name: str) -> pd.Series[float]:
    return frame[name] if name in frame else pd.Series(dtype=float)


def _whole(values: pd.Series[float]) -> str:
    counts = sorted(set(values.dropna().astype(int)))
    return " / ".join(f"{count:,}" for count in counts) or NO_VALUE


def _outcomes(group: pd.DataFrame) -> str:
    counts = Counter(group["ending"])
    if set(counts) == {FINISHED}:
        return FINISHED
    return ", ".join(f"{count} {ending}" for ending, count in counts.items())
