"""The tables of a report, as text, from the tidy tables of `frames`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from nodebench.report import published
from nodebench.report.statistics import (
    count_and_spread,
    magnitude,
    mean_and_spread,
    measured,
    unit,
)
from nodebench.sweep import Sweep
from nodebench.trial_folder import FINISHED
from nodebench.verdict import NUMBERS

NO_VALUE = "–"


def summary(
    sweep: Sweep, frame: pd.DataFrame, judged: pd.DataFrame, timed: pd.DataFrame
) -> pd.DataFrame:
    """One row per cell of the sweep, seeds joined: the main table of a report, as text.

    A cell's published number, if there is one, stands beside ours, and the verdict on its models
    if they were evaluated under other solvers. Metrics and costs are means ± sample standard
    deviations over the seeds that finished; seconds per epoch are those of the timing pass, or
    of training where that is all there is.
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
                **_verdict(judged, done["id"]),
                **_judged("val_", done, metrics),
                **_judged("train_", done, metrics),
                **_judged("best_test_", done, metrics),
                "parameters": _whole(_column(done, "parameters")),
                **_seconds(done, timed),
                "NFE forward": count_and_spread(_column(done, "nfe_forward")),
                "NFE backward": count_and_spread(_column(done, "nfe_backward")),
                **_adapted(done),
                "outcomes": _outcomes(group),
            }
        )
    table = pd.DataFrame(rows).fillna(NO_VALUE)
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


def _verdict(judged: pd.DataFrame, ids: pd.Series[str]) -> dict[str, str]:
    """What is lost under a finer solver, and the verdict, on the models of a cell."""
    found = judged[judged["trial"].isin(ids)] if len(judged) else judged
    if judged.empty:
        return {}
    metric = judged["metric"].iloc[0]
    if found.empty:  # keeps the columns in their place
        return {f"drop{unit(metric)}": NO_VALUE, "is it an ODE?": NO_VALUE}
    drop = measured(metric, found["drop"].astype(float))
    return {f"drop{unit(metric)}": drop, "is it an ODE?": _words(found["verdict"])}


def _words(verdicts: pd.Series[str]) -> str:
    counts = Counter(verdicts)
    if len(counts) == 1:
        return str(verdicts.iloc[0])
    return ", ".join(f"{count} {word}" for word, count in counts.most_common())


def verdicts(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell: the verdicts on its models and the numbers behind them, as text.

    `frame` is the table of `frames.verdicts`.
    """
    rows = []
    for key, group in _cells(sweep, frame.rename(columns={"trial": "id"})):
        metric = group["metric"].iloc[0]
        numbers = {name: group[name].astype(float) for name in NUMBERS}
        reasons = sorted(set(group["why"]) - {""})
        rows.append(
            {
                **key,
                "is it an ODE?": _words(group["verdict"]),
                f"own solver{unit(metric)}": measured(metric, numbers["own"]),
                f"limit{unit(metric)}": measured(metric, numbers["limit"]),
                f"drop{unit(metric)}": measured(metric, numbers["drop"]),
                "sufficient steps": _listed(numbers["sufficient_steps"]),
                "order": mean_and_spread(numbers["order"], 2),
                "n": str(len(group)),
                "why undecided": "; ".join(reasons) or NO_VALUE,
            }
        )
    table = pd.DataFrame(rows)
    return table.drop(columns=[c for c in table if (table[c] == NO_VALUE).all()])


SHARED = "s/epoch ‡"


def _seconds(done: pd.DataFrame, timed: pd.DataFrame) -> dict[str, str]:
    """Seconds per epoch alone on each kind of machine; the trainings' own if there is no such."""
    if timed.empty:
        return {SHARED: mean_and_spread(_column(done, "epoch_s"), 2)}
    found = timed[timed["trial"].isin(done["id"])]
    machines = list(dict.fromkeys(timed["machine"]))
    where = {machine: f" on {machine}" if len(machines) > 1 else "" for machine in machines}
    seconds = {m: found.loc[found["machine"] == m, "timed_epoch_s"] for m in machines}
    return {
        f"s/epoch{where[machine]}": _three_digits(values.median()) if len(values) else NO_VALUE
        for machine, values in seconds.items()
    }


def _three_digits(value: float) -> str:
    """1234.5 as 1230, without an exponent."""
    return f"{float(f'{value:.3g}'):g}"


def timings(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per timed cell and kind of machine: what a training step takes, as text.

    `frame` is the table of `frames.timings`.
    """
    rows = [
        {
            **key,
            "machine": row["machine"],
            "ms/step": _three_digits(1e3 * row["step_s"]),
            "least – most": " – ".join(
                _three_digits(1e3 * row[name]) for name in ("step_s_least", "step_s_most")
            ),
            "s/epoch": _three_digits(row["timed_epoch_s"]),
            "NFE forward": shown(row.get("nfe_forward")),
            "NFE backward": shown(row.get("nfe_backward")),
            "rounds × steps": f"{row['rounds']} × {row['steps']}",
            "load before": f"{row['load_before']:.1f}",
        }
        for key, group in _cells(sweep, frame.rename(columns={"trial": "id"}))
        for row in group.to_dict("records")
    ]
    return pd.DataFrame(rows)


def _listed(steps: pd.Series[float]) -> str:
    """The number of steps of every seed, or one for all; a dash where there is none."""
    values = [shown(value) for value in steps]
    return values[0] if len(set(values)) == 1 else ", ".join(values)


def gradients(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, moment, solver and gradient method: fidelity and costs, as text.

    `frame` is the table of `frames.gradients`.
    """
    frame = frame.reindex(columns=frame.columns.union(sweep.varying, sort=False))
    settings = [path for path in sweep.varying if frame[path].nunique(dropna=False) > 1]
    columns = [*settings, "at", "test.method", "budget", "gradient"]
    frame = frame.reindex(columns=frame.columns.union([*columns, *COSTS], sort=False))
    rows = []
    for key, group in frame.groupby(columns, dropna=False, sort=False):
        done = group[group["outcome"] == FINISHED]
        names = [*map(sweep.heading, settings), "weights at", "method", "budget", "gradient"]
        failed = Counter(group.loc[group["outcome"] != FINISHED, "outcome"])
        error = magnitude(done["gradient_error"].astype(float))
        rows.append(
            {
                **dict(zip(names, map(shown, key), strict=True)),
                "relative error": ", ".join([error, *(f"{n} {o}" for o, n in failed.items())]),
                "cosine": mean_and_spread(done["gradient_cosine"].astype(float), 4),
                "NFE forward": count_and_spread(done["nfe_forward"].astype(float)),
                "NFE backward": count_and_spread(done["nfe_backward"].astype(float)),
                "ms": mean_and_spread(done["seconds"].astype(float) * 1e3, 1),
                "MB": mean_and_spread(done["memory_bytes"].astype(float) / 1e6, 1),
                "n": str(len(done)),
            }
        )
    return pd.DataFrame(rows)


COSTS = (
    "gradient_error",
    "gradient_cosine",
    "nfe_forward",
    "nfe_backward",
    "seconds",
    "memory_bytes",
)


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


def published_numbers(sweep: Sweep, frame: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """One row per published number of the sweep's cells: ours, theirs, and where it stands."""
    numbers: dict[tuple[str, str], tuple[published.Published, list[str]]] = {}
    for trial in sweep.trials:
        for entry in published.about(sweep.name, trial.spec):
            key = sweep.cell_label(trial), entry.what
            numbers.setdefault(key, (entry, []))[1].append(trial.id)
    rows = []
    for (cell, _), (entry, ids) in numbers.items():
        done = frame[frame["id"].isin(ids) & (frame["outcome"] == FINISHED)]
        values = _at_the_limit(judged, ids) if entry.under else _column(done, entry.metric)
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


def _at_the_limit(judged: pd.DataFrame, ids: list[str]) -> pd.Series[float]:
    """The headline metric of each trial under the finest solver."""
    if judged.empty:
        return pd.Series(dtype=float)
    return judged.loc[judged["trial"].isin(ids), "limit"].astype(float)


def robustness(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell and test method, one column per budget: the headline metric, as text.

    Of the points in `frame`, those that the sweep's file asks for.

    A column is a number of evaluations (`NFE 32`), summed over ODE blocks, for methods with a
    fixed number of stages, a number of steps for other methods on a grid, a multiple of the
    training step size (`h × 0.5`) where the sweep asks for such, else a tolerance. `n`
    counts the seeds of a row; a mean over fewer of them says so. `test_size` is shown if it varies.
    """
    frame = frame[frame["asked"]]
    columns = [*sweep.varying, "test.method"]
    if frame["batch_norm"].nunique() > 1:
        columns.append("batch_norm")
    if frame["test_size"].nunique(dropna=False) > 1:
        columns.append("test_size")
        frame = frame.assign(test_size=[_size(size) for size in frame["test_size"]])
    # A setting that tells cells apart may be one that no evaluated trial has.
    frame = frame.reindex(columns=frame.columns.union(columns, sort=False))
    # A tolerance and a multiple of the training tolerance can be the same, which counts once.
    frame = frame.drop_duplicates(["trial", "test.method", "test_size", "batch_norm", "budget"])
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
