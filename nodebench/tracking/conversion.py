"""The store in MLflow's terms: rows as metrics, results as tags, a sweep as columns."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from nodebench.files import modified
from nodebench.report.analysis.verdict import Verdict
from nodebench.store import Result, TrialFolder
from nodebench.store.rows import Row
from nodebench.sweep import Sweep
from nodebench.tracking.client import Metric

VIEW = "nodebench"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
"""The tag of an experiment that holds a view of its runs, which a URL can select."""


def view_columns(sweep: Sweep) -> str:
    """The columns that distinguish a sweep's trials in MLflow's list of runs, as JSON."""
    headlines = dict.fromkeys(trial.spec.data.headline for trial in sweep.trials)
    columns = [f"metrics.`{name}`" for name in headlines]
    columns += [f"params.`{path}`" for path in (*sweep.varying, "seed")]
    return json.dumps({"selectedColumns": columns})


def epoch_metrics(row: Row) -> Iterable[Metric]:
    """An epoch's numbers, at the epoch's time."""
    stamp, epoch = milliseconds(row["time"]), row["epoch"]
    names = (name for name in row if name not in ("time", "epoch"))
    return (Metric(name, float(row[name]), stamp, epoch) for name in names)


def training_metrics(result: Result) -> list[Metric]:
    """The metrics of the whole training rather than of an epoch."""
    stamp = milliseconds(result.finished)
    return [
        Metric(name, float(value), stamp, 0)
        for name, value in result.summary.items()
        if name.startswith(("best_", "parameters"))
    ]


def run_status(result: Result) -> str:
    """MLflow's word for how a trial ended."""
    return "FINISHED" if result.is_finished else "FAILED"


def milliseconds(seconds: float) -> int:
    """A time in MLflow's unit."""
    return round(seconds * 1000)


def result_tags(result: Result) -> dict[str, str]:
    """A result as tags of its run: how the trial ended, and on which machine."""
    here: dict[str, Any] = result.environments[-1] if result.environments else {}
    found = {
        "outcome": result.outcome,
        "reason": result.reason,
        **{f"nodebench.{name}": str(value) for name, value in here.items()},
        **{f"nodebench.{name}": value for name, value in result.tags.items()},
    }
    if result.distinct_environments > 1:
        found["nodebench.mixed_environments"] = "true"
    return found


def stamp_of_points(folder: TrialFolder, result: Result) -> int:
    """The time at which a verdict was reached; MLflow shows the latest of several values."""
    evaluated = modified(folder.evaluations_file) / 1e9  # 0: it crashed before its first point
    return milliseconds(max(result.finished, evaluated))


def verdict_metrics(judged: Verdict, stamp: int) -> list[Metric]:
    """The numbers behind a verdict."""
    return [Metric(f"verdict_{name}", value, stamp, 0) for name, value in judged.numbers.items()]


def timing_metrics(folder: TrialFolder) -> list[Metric]:
    """Seconds of a step and of an epoch, from the latest timing pass."""
    newest = max(folder.timings(), key=lambda row: row["time"], default={})
    names = [name for name in ("step_s", "timed_epoch_s") if name in newest]
    return [Metric(name, newest[name], milliseconds(newest["time"]), 0) for name in names]


def points_table(rows: Sequence[Row]) -> str:
    """Evaluation points as a CSV table: their settings, their solvers and their results."""
    flat = [
        {
            **row["point"],
            **{f"solver.{name}": value for name, value in row["solver"].items()},
            **{name: value for name, value in row.items() if name not in ("point", "solver")},
        }
        for row in rows
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in flat for name in row)))
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def fingerprint(folder: TrialFolder, sweep: Sweep) -> str:
    """A hash that changes whenever something that MLflow shows of a finished trial does."""
    # The verdict depends on what the sweep evaluates, and on its margin.
    digest = hashlib.sha256(f"{sweep.margin} {sweep.evaluate}".encode())
    for path in folder.reported_files:
        digest.update(path.read_bytes() if path.exists() else b"-")
    digest.update((folder.error() or "").encode())
    return digest.hexdigest()[:16]
