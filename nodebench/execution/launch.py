"""What the commands do, for use from Python: plan, run, time, repro.

torch, Ray, MLflow and pandas are imported where they are needed, so that planning is instant.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nodebench.errors import InputError
from nodebench.execution.preflight import prepared, require_all, require_places, require_run
from nodebench.execution.publishing import publishing
from nodebench.execution.ray_cluster import quieten
from nodebench.execution.runner import Monitor, NullMonitor, Runner, run_inline
from nodebench.files import PACKAGE
from nodebench.planning import entries
from nodebench.planning.freshness import is_tracked
from nodebench.planning.launches import require_name
from nodebench.planning.lookup import find, load_sweep, sweep_path
from nodebench.planning.options import options_for
from nodebench.planning.plan import Entry
from nodebench.planning.selection import chosen
from nodebench.report.folder import require_own
from nodebench.spec import Trial
from nodebench.store import Store
from nodebench.store.locations import default_store, report_folder, tracking_uri
from nodebench.store.result import Row
from nodebench.sweep import Sweep
from nodebench.sweep.file import SizeName

if TYPE_CHECKING:
    from nodebench.execution.reproduction import Reproduction


@dataclass(frozen=True)
class Outcome:
    """What a run came to; `undrawn` are figures that its report lacks, and why."""

    entries: list[Entry]
    page: Path | None
    tracking_problem: str | None
    report_problem: str | None = None
    undrawn: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is missing; a trial that did not finish (DNF) has a result."""
        return not any(entry.missing for entry in self.entries)


def run(
    sweep: Sweep,
    store: Store | None = None,
    monitor: Monitor | None = None,
    *,
    inline: bool = False,
    cpu: bool = False,
    train: bool = True,
    only: Sequence[str] = (),
    shard: str = "1/1",
    retry_failed: bool = False,
    fail_fast: bool = False,
    track: bool = True,
    require_mlflow: bool = False,
    write_report: bool = True,
    replace_other: bool = False,
) -> Outcome:
    """Runs what is missing of a sweep, brings MLflow up to date, and writes the report.

    Without `train`, only evaluates what has been trained, or has its weights from elsewhere.
    The store is by default that of NODEBENCH_RUNS; nobody watches unless a `monitor` is given.
    `only` (`path=value` texts) and `shard` (`i/n`) leave a part of the trials. With
    `retry_failed`, trials that did not finish (DNF) are tried again; with `fail_fast`, the first
    that has no result ends the run. A sweep may `replace_other`: another file of its name.

    Raises:
        InputError, DataError, ResourceError: as `preflight.require_run`, before anything starts.
        StoreError: if another process runs this sweep, or another file has its name.
        TrackingError: if MLflow cannot be used, and `require_mlflow`; or cannot be named so.
    """
    store, monitor = store or default_store(), monitor or NullMonitor()
    _require_places(sweep, store, track=track, report=write_report, replace_other=replace_other)
    ids = chosen(sweep, only, shard)
    options = replace(options_for(sweep, cpu=cpu), tags=_commit(), retry_failed=retry_failed)
    planned = entries(sweep, store, options, ids)
    todo = [entry for entry in planned if entry.missing and (train or entry.is_trained)]
    missing = [entry.trial for entry in todo]
    track = track and bool(missing or require_mlflow or not is_tracked(sweep, store))
    require_run(missing, options, inline=inline)
    with store.sweep(sweep.name).run_lock(shard):
        options = prepared(todo, options, inline=inline)
        monitor.on_plan(len(planned), len(missing))
        with ExitStack() as ray:
            # Before MLflow hears of it: Ray may not come up.
            uses_ray = missing and not inline
            runner = ray.enter_context(_workers(store.root)) if uses_ray else run_inline
            with publishing(
                sweep, store, monitor,
                track=track, require_mlflow=require_mlflow, write_report=write_report,
            ) as published:  # fmt: skip
                if missing:
                    runner(missing, store, options, monitor, fail_fast=fail_fast)
                ray.close()
    after = entries(sweep, store, replace(options, retry_failed=False), ids)
    return Outcome(after, *published.came_to)


def _workers(root: Path) -> AbstractContextManager[Runner]:
    """Ray's workers. Its settings come first, since Ray reads them when it is imported."""
    quieten()
    from nodebench.execution.ray_tune import workers

    return workers(root)


@dataclass(frozen=True)
class Timed:
    """What a timing pass came to: by trial id, its row, or why there is none.

    `untimed` cells have no finished trial with a checkpoint.
    """

    rows: dict[str, Row]
    problems: dict[str, str]
    untimed: int
    page: Path | None
    tracking_problem: str | None
    report_problem: str | None = None
    undrawn: tuple[str, ...] = ()


def time_cells(
    sweep: Sweep,
    store: Store,
    monitor: Monitor,
    *,
    steps: int = 10,
    rounds: int = 5,
    cpu: bool = False,
    track: bool = True,
    write_report: bool = True,
    replace_other: bool = False,
    on_round: Callable[[int], None] = lambda _round: None,
) -> Timed:
    """Times a training step of every cell, alone on its device, one after the other in `rounds`.

    Of each cell, the first trial that has finished and still has its checkpoint is taken.

    Raises:
        InputError: if none has, or as `run` does.
    """
    _require_places(sweep, store, track=track, report=write_report, replace_other=replace_other)
    options = options_for(sweep, cpu=cpu)
    of_cell: dict[str, Trial] = {}
    finished = [entry.trial for entry in entries(sweep, store, options) if entry.is_finished]
    for trial in finished:
        if store.folder(trial.id).checkpoint.exists():
            of_cell.setdefault(trial.cell.key, trial)
    if not of_cell:
        why = "the checkpoints have been removed" if finished else "no trial has finished yet"
        raise InputError(f"{sweep.name}: {why}, so there is nothing to time")
    trials = list(of_cell.values())
    require_all(trials, options, inline=True)
    from nodebench.execution.timing import time_trials

    with (
        store.sweep(sweep.name).run_lock(),
        publishing(sweep, store, monitor, track=track, write_report=write_report) as published,
    ):
        rows, problems = time_trials(
            trials, store, options, steps=steps, rounds=rounds, on_round=on_round
        )
    untimed = len({trial.cell.key for trial in sweep.trials}) - len(trials)
    return Timed(rows, problems, untimed, *published.came_to)


def _require_places(
    sweep: Sweep, store: Store, *, track: bool, report: bool, replace_other: bool
) -> None:
    """Refuses, before anything is written, what cannot be, or would be over something else."""
    require_places(store, report_folder(sweep.name) if report else None)
    require_name(sweep, store, replace=replace_other)
    if track:
        tracking_uri(store)
    if report:
        require_own(report_folder(sweep.name))


def reproduce(
    source: str | Path,
    trial_id: str,
    store: Store,
    *,
    overrides: Sequence[str] = (),
    size: SizeName = "full",
    cpu: bool = False,
    on_epoch: Callable[[Row], None] = lambda _row: None,
) -> Reproduction:
    """Runs a trial of a sweep again, alone in this process, and compares it with its record.

    The record is that of the store, or else that of the report in whose folder the sweep file is.

    Raises:
        InputError: if there is no such trial, no record of it, or it cannot be run here.
    """
    from nodebench.execution.reproduction import recorded, reproduce, require_current

    sweep = load_sweep(source, overrides=overrides, size=size)
    table = sweep_path(source).with_name("results.csv")
    require_current(trial_id, sweep.trials, table)
    trial = find(trial_id, store, sweep)
    record = recorded(trial, store, table)
    options = options_for(sweep, cpu=cpu)
    require_all([trial], options, inline=True)
    return reproduce(trial, record, options, on_epoch)


def _commit() -> dict[str, str]:
    """The git commit of nodebench's source, and whether anything but reports is uncommitted.

    Nothing of an installed package, which has a version.
    """
    try:
        _git("ls-files", "--error-unmatch", "nodebench/__init__.py")
        commit = _git("rev-parse", "--short=12", "HEAD")
        dirty = bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!reports"))
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit, "dirty": "yes" if dirty else "no"}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PACKAGE.parent), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode().strip()
