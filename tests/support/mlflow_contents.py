"""What a store and its MLflow file hold, for comparing two of them."""

import sqlite3
from pathlib import Path

from nodebench.store.rows import INCIDENTAL


def mlflow_points(file: Path) -> dict[str, list[tuple[str, int, float]]]:
    """trial id -> (metric, step, value), every point as often as it is stored."""
    with sqlite3.connect(file) as database:
        trials = dict(
            database.execute("SELECT run_uuid, value FROM tags WHERE key = 'nodebench.trial'")
        )
        assert len(set(trials.values())) == len(trials)
        reports = database.execute("SELECT run_uuid FROM tags WHERE key = 'nodebench.report'")
        others = database.execute("SELECT run_uuid FROM runs").fetchall()
        assert {run for (run,) in others} == {*trials, *(run for (run,) in reports)}
        found: dict[str, list[tuple[str, int, float]]] = {trial: [] for trial in trials.values()}
        for run, key, step, value in database.execute(
            "SELECT run_uuid, key, step, value FROM metrics ORDER BY key, step"
        ):
            if key not in INCIDENTAL:
                found[trials[run]].append((key, step, value))
    return found
