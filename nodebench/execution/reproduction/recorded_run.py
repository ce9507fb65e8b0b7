"""Finds a recorded trial, its sweep and the record of its first run."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodebench.errors import InputError, StoreError, SweepError, shown
from nodebench.execution.reproduction.metrics import (
    metrics_in_tables,
    metrics_of,
    plain,
    table_rows,
)
from nodebench.planning.lookup import find
from nodebench.spec import Trial
from nodebench.spec.identity import NUMERICS
from nodebench.store import Store, TrialFolder
from nodebench.store.sweep_record import SweepRecord
from nodebench.sweep import Sweep, load

WHOLE_NUMBERS = ("threads", "packed")
"""Counts in an environment; tables in which a trial lacks one write it with a decimal point."""


@dataclass(frozen=True)
class RecordedRun:
    """The record of a trial's first run."""

    outcome: str
    metrics: Mapping[str, float]
    environment: Mapping[str, str]


def recorded_run(trial: Trial, store: Store, table: Path) -> RecordedRun:
    """The record of a trial in the store or, if it has none, in a report's tables.

    `table` is the report's `results.csv`; the tables next to it have the evaluation points.

    Raises:
        StoreError: if neither has it.
    """
    folder = store.folder(trial.id)
    result = folder.result()
    if result is not None and not result.is_error:
        environment = result.environments[-1] if result.environments else {}
        return RecordedRun(result.outcome, metrics_of(folder), in_words(environment))
    for row in table_rows(table):
        if row["id"] == trial.id and row["outcome"] != "missing":
            return RecordedRun(row["outcome"], metrics_in_tables(row, table), in_words(row))
    raise StoreError(
        f"`{trial.id}` has no record in `{store.root}` or `{table}`. Give the `sweep.yaml` of a "
        "report's folder, or run the sweep first"
    )


def in_words(environment: Mapping[str, Any]) -> dict[str, str]:
    """An environment as text; counts as whole numbers, even if a table has `2.0`."""
    return {
        name: plain(value) if name in WHOLE_NUMBERS else str(value)
        for name, value in environment.items()
    }


def sweep_of(start: str, store: Store) -> Path:
    """The store's copy of the file of a sweep that planned the trial whose id starts with `start`.

    A sweep that still has the trial comes first.

    Raises:
        InputError: if `start` cannot be that of an id.
        StoreError: if there is no such trial, or no sweep of the store has planned it.
    """
    if not set(start) <= set(string.hexdigits.lower()):
        raise InputError(
            f"{shown(start)} is not the start of a trial's id, which is hexadecimal. Write "
            f"{shown(f'nodebench repro ID {start}')} with one of the ids that "
            f"{shown(f'nodebench plan {start}')} lists"
        )
    if not any(trial_id.startswith(start) for trial_id in store.trial_ids()):
        raise StoreError(
            f"no trial starts with `{start}` in `{store.trials_root}`. `nodebench plan SWEEP` "
            "lists a sweep's. If a report has it, give the report's folder "
            f"(`nodebench repro {start} reports/SWEEP`)"
        )
    trial_id = store.find(start).path.name
    records = [record for record in store.sweep_records() if trial_id in record.labels()]
    if not records:
        raise StoreError(
            f"no sweep in `{store.root}` has planned `{trial_id}`. Give its sweep file "
            f"(`nodebench repro {trial_id} SWEEP`)"
        )
    return next((each for each in records if _has(each, trial_id)), records[0]).file


def _has(record: SweepRecord, trial_id: str) -> bool:
    """Whether the store's copy of a sweep's file has a trial."""
    try:
        return any(trial.id == trial_id for trial in load(record.file).trials)
    except SweepError:  # written by another release
        return False


def recorded_trial(start: str, sweep: Sweep, store: Store, table: Path) -> Trial:
    """The trial whose id starts with `start`: the sweep's or, if it has none, the store's.

    `table` is the `results.csv` next to the sweep's file.

    Raises:
        StoreError: if neither has it, or several ids start like this.
        InputError: if its id in the store or the table is no longer the id of its settings.
    """
    is_planned = any(trial.id.startswith(start) for trial in sweep.trials)
    if not is_planned and any(trial_id.startswith(start) for trial_id in store.trial_ids()):
        return _stored(store.find(start))
    if not is_planned:
        _require_current(start, table)
    return find(start, store, sweep)


def _stored(folder: TrialFolder) -> Trial:
    """A trial of the store, whose settings must still give its id."""
    trial = Trial(folder.trial().spec)
    if trial.id != folder.path.name:
        result = folder.result()
        raise InputError(
            f"`{folder.path.name}` is in `{folder.path.parent}`, but its settings now give another "
            f"id: its numbers come from other numerics (now {NUMERICS}), or your own code or the "
            f"file of its weights was changed. It ran at {_commit(result.tags if result else {})}: "
            "restore what it ran with, or run the sweep again"
        )
    return trial


def _require_current(start: str, table: Path) -> None:
    """Refuses a trial whose id in a report is no longer the id of its settings."""
    for row in table_rows(table):
        if row["id"].startswith(start):
            raise InputError(
                f"`{row['id']}` is in `{table}`, but not in the plan of this release: its numbers "
                f"come from other numerics (now {NUMERICS}), or its sweep was changed. It ran at "
                f"{_commit(row)}: check out the commit that wrote the table (`git log -1 -- "
                f"{table}`) to repeat it, or run the sweep again"
            )


def _commit(record: Mapping[str, str]) -> str:
    return f"commit {record['commit']}" if record.get("commit") else "the commit of that time"
