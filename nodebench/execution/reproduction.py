"""Runs a recorded trial again and compares the two runs, metric by metric."""

from __future__ import annotations

import csv
import io
import itertools
import math
import string
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodebench.errors import InputError, StoreError, SweepError, TrialOutcome, shown
from nodebench.planning import RunOptions
from nodebench.planning.lookup import find
from nodebench.spec import Trial
from nodebench.spec.identity import NUMERICS
from nodebench.spec.point import known_point
from nodebench.spec.settings import flatten
from nodebench.spec.solver import Solver
from nodebench.store import Store, TrialFolder
from nodebench.store.rows import INCIDENTAL, Row
from nodebench.store.sweep_record import SweepRecord
from nodebench.sweep import Sweep, load
from nodebench.training.trial import run_trial

ALONE = {"packed": "1"}
"""The environment of a trial that is not in a pack, such as any trial that is run again."""

WHOLE_NUMBERS = ("threads", "packed")
"""Counts in an environment; tables in which a trial lacks one write it with a decimal point."""

SAME_METRIC = 1e-6
"""Relative difference below which two metrics count as one number, rounded differently."""


UNDER = " under "
"""Separates the name of a metric from the name of the evaluation point that it belongs to."""


@dataclass(frozen=True)
class Comparison:
    """One metric as it was recorded and as it came out now."""

    name: str
    recorded: float
    now: float

    @property
    def is_same_bits(self) -> bool:
        """Whether both values are the same number, or both nan."""
        return self.recorded == self.now or (math.isnan(self.recorded) and math.isnan(self.now))

    @property
    def agrees(self) -> bool:
        """Whether both values are the same up to rounding."""
        return self.is_same_bits or math.isclose(self.recorded, self.now, rel_tol=SAME_METRIC)


@dataclass(frozen=True)
class Reproduction:
    """A second run of a trial compared with the first.

    `environments` has the fields in which the machines differ, (name, then, now); `then` is None if
    the record lacks the field, as an older one may.
    """

    outcomes: tuple[str, str]
    metrics: list[Comparison]
    unmatched: list[str]
    """Metrics of the second run that the record lacks."""

    failed_points: list[str]
    """Recorded points that failed in the second run, each with its outcome."""

    unmeasured_points: list[str]
    """Recorded points that the second run left out, since the sweep does not ask for them."""

    environments: list[tuple[str, str | None, str]]

    @property
    def agrees(self) -> bool:
        """Whether the trial ended in the same way, with the same metrics up to rounding."""
        is_alike = self.outcomes[0] == self.outcomes[1] and not self.failed_points
        return is_alike and bool(self.metrics) and all(m.agrees for m in self.metrics)


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
    result = store.folder(trial.id).result()
    if result is not None and not result.is_error:
        environment = result.environments[-1] if result.environments else {}
        return RecordedRun(result.outcome, _metrics(store.folder(trial.id)), _words(environment))
    for row in _rows(table):
        if row["id"] == trial.id and row["outcome"] != "missing":
            numbers = {name: _number(text) for name, text in row.items()}
            metrics = {name: value for name, value in numbers.items() if value is not None}
            tables = [table.with_name(f"{name}.csv") for name in ("evaluations", "batches")]
            points = _recorded_points(trial.id, *tables)
            return RecordedRun(row["outcome"], metrics | points, _words(row))
    raise StoreError(
        f"`{trial.id}` has no record in `{store.root}` or `{table}`. Give the `sweep.yaml` of a "
        "report's folder, or run the sweep first"
    )


def sweep_of(start: str, store: Store) -> Path:
    """The store's copy of the file of a sweep that planned the trial whose id starts with `start`.

    A sweep that still has the trial comes first.

    Raises:
        InputError: if `start` cannot be that of an id.
        StoreError: if there is no such trial, or no sweep of the store has planned it.
    """
    if not set(start) <= set(string.hexdigits.lower()):
        raise InputError(
            f"{shown(start)} is not the start of a trial's id, which is hexadecimal. "
            "`nodebench plan SWEEP` lists ids"
        )
    if not any(trial_id.startswith(start) for trial_id in store.trial_ids()):
        raise StoreError(
            f"no trial starts with `{start}` in `{store.trials_root}`. If a report has it, give "
            f"the report's folder (`nodebench repro {start} reports/SWEEP`)"
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
    for row in _rows(table):
        if row["id"].startswith(start):
            raise InputError(
                f"`{row['id']}` is in `{table}`, but not in the plan of this release: its numbers "
                f"come from other numerics (now {NUMERICS}), or its sweep was changed. It ran at "
                f"{_commit(row)}: check out the commit that wrote the table (`git log -1 -- "
                f"{table}`) to repeat it, or run the sweep again"
            )


def _commit(record: Mapping[str, str]) -> str:
    return f"commit {record['commit']}" if record.get("commit") else "the commit of that time"


def _rows(table: Path) -> Iterator[dict[str, str]]:
    text = table.read_text(encoding="utf-8") if table.is_file() else ""
    yield from csv.DictReader(io.StringIO(text))


def run_again(
    trial: Trial, record: RecordedRun, options: RunOptions, on_epoch: Callable[[Row], None]
) -> Reproduction:
    """Runs a trial again, from the beginning, in a temporary store.

    Raises:
        InputError: if the code fails, so that there is nothing to compare, or a search had stopped
            the trial.
    """
    if record.outcome == TrialOutcome.STOPPED:
        raise InputError(
            f"`{trial.id}` was stopped by its search, so it has no final result to compare with"
        )
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        result = run_trial(trial, store, options, on_epoch)
        if result.is_error:
            raise InputError(f"`{trial.id}` has no result here: {result.reason}")
        found = _metrics(store.folder(trial.id))
        failed = _failed_points(store.folder(trial.id))
    recorded_points = _points_of(record.metrics)
    shared = [name for name in found if name in record.metrics]
    here = ALONE | _words(result.environments[-1] if result.environments else {})
    before = ALONE | {name: value for name, value in record.environment.items() if value}
    return Reproduction(
        outcomes=(record.outcome, result.outcome),
        metrics=[Comparison(name, record.metrics[name], found[name]) for name in shared],
        unmatched=[name for name in found if name not in record.metrics],
        failed_points=[
            f"{where}: {outcome}" for where, outcome in failed.items() if where in recorded_points
        ],
        unmeasured_points=[p for p in recorded_points if p not in {*_points_of(found), *failed}],
        environments=[
            (name, before.get(name), value)
            for name, value in here.items()
            if name != "host" and before.get(name) != value
        ],
    )


def _metrics(folder: TrialFolder) -> dict[str, float]:
    """A trial's metrics, including those of its evaluation points that did not fail."""
    result = folder.result()
    assert result is not None
    found = {name: value for name, value in result.summary.items() if name not in INCIDENTAL}
    for row in folder.evaluations():
        if row["outcome"] == TrialOutcome.FINISHED:
            left_out = {*INCIDENTAL, "limit"}
            numbers = {k: v for k, v in row.items() if isinstance(v, float) and k not in left_out}
            found |= {f"{name}{UNDER}{_place(row)}": value for name, value in numbers.items()}
    return found


def _points_of(metrics: Iterable[str]) -> list[str]:
    """The names of the evaluation points that some metrics belong to."""
    return list(dict.fromkeys(n.partition(UNDER)[2] for n in metrics if UNDER in n))


def _failed_points(folder: TrialFolder) -> dict[str, str]:
    """The names of a trial's failed evaluation points, and their outcomes."""
    rows = folder.evaluations()
    return {_place(r): r["outcome"] for r in rows if r["outcome"] != TrialOutcome.FINISHED}


def _place(row: Row) -> str:
    """The name of an evaluation point."""
    point = known_point(row)
    asked = (point.gradient, point.at) if point.gradient else ()
    solver = flatten(Solver(**row["solver"]))
    return _under(solver, point.batch_norm, point.test_size, point.batch_size, *asked)


def _recorded_points(trial_id: str, *tables: Path) -> dict[str, float]:
    """The metrics of a trial's evaluation points in a report's tables, named as in `_metrics`."""
    found: dict[str, float] = {}
    for row in itertools.chain(*map(_rows, tables)):
        if row["trial"] == trial_id and row.get("outcome") in (None, "", TrialOutcome.FINISHED):
            solver = {k.removeprefix("test."): v for k, v in row.items() if k.startswith("test.")}
            size = row.get("batch_size") if "step of" in row else None
            where = _under(solver, row["batch_norm"], row["test_size"], size)
            numbers = {name: _number(text) for name, text in row.items()}
            found |= {f"{k}{UNDER}{where}": v for k, v in numbers.items() if v is not None}
    return found


def _under(solver: Mapping[str, Any], *rest: object) -> str:
    """The name of a point: its solver and its other settings."""
    words = [str(solver["method"])]
    words += [
        f"{name} {_plain(solver[name])}"
        for name in sorted(solver)
        if name != "method" and solver[name] not in (None, "", "None")
    ]
    return " ".join([*words, *(_plain(x) for x in rest if x not in (None, "", "running"))])


def _plain(value: object) -> str:
    number = _number(str(value))
    return str(value) if number is None else f"{number:g}"


def _words(environment: Mapping[str, Any]) -> dict[str, str]:
    """An environment as text; counts as whole numbers, even if a table has `2.0`."""
    return {
        name: _plain(value) if name in WHOLE_NUMBERS else str(value)
        for name, value in environment.items()
    }


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
