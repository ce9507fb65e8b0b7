"""The work of the commands that train or evaluate: run, evaluate, time, repro.

torch, Ray, MLflow and pandas are imported where they are needed, so that planning is instant.
"""

from __future__ import annotations

import multiprocessing
import subprocess
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nodebench.errors import InputError, counted
from nodebench.execution.launch_keywords import Launch
from nodebench.execution.preflight import require_all, require_run, with_measured_gpus
from nodebench.execution.publishing import Publication, Published, publishing
from nodebench.execution.ray_cluster import is_cluster_named, quieten
from nodebench.execution.reproduction.recorded_run import recorded_run, recorded_trial, sweep_of
from nodebench.execution.runner import Monitor, Runner, run_inline
from nodebench.files import PACKAGE
from nodebench.planning import entries
from nodebench.planning.freshness import is_tracked
from nodebench.planning.lookup import SweepSource, in_order, resolved
from nodebench.planning.options import RunOptions, options_for
from nodebench.planning.plan import Entry, options_for_entries
from nodebench.report.figures import processes
from nodebench.spec import Trial
from nodebench.store import Store
from nodebench.store.locations import default_store
from nodebench.store.rows import Row
from nodebench.sweep import Sweep

if TYPE_CHECKING:
    from nodebench.execution.reproduction.second_run import Reproduction


@dataclass(frozen=True)
class Launched:
    """The result of a run: the standing of each trial, and what was published."""

    entries: list[Entry]
    published: Published

    def __repr__(self) -> str:
        finished = sum(entry.is_finished for entry in self.entries)
        trials = counted(len(self.entries), "trial")
        problem = self.published.tracking_problem
        lacking = f", MLflow not written ({problem})" if problem else ""
        return f"<Launched: {finished} of {trials} finished, report {self.page}{lacking}>"

    @property
    def page(self) -> Path | None:
        """The report's page, if one was written."""
        return self.published.page

    @property
    def complete(self) -> bool:
        """Whether nothing is missing; a trial that did not finish (DNF) has a result too."""
        return not any(entry.missing for entry in self.entries)


def run_sweep(sweep: Sweep, store: Store, monitor: Monitor, launch: Launch) -> Launched:
    """Runs the missing trials of a sweep, brings MLflow up to date, and writes the report.

    Raises:
        InputError, DataError, ResourceError: as in `preflight.require_run`, before anything starts.
        StoreError: if another process runs this sweep, or another file has its name.
        TrackingError: if MLflow is required but cannot be used, or its address is invalid.
    """
    return _run(sweep, store, monitor, launch, lambda _entry: True)


def evaluate_sweep(sweep: Sweep, store: Store, monitor: Monitor, launch: Launch) -> Launched:
    """Like `run_sweep`, but trains nothing: evaluates models with trained or foreign weights."""

    def is_trained(entry: Entry) -> bool:
        return entry.is_trained

    return _run(sweep, store, monitor, launch, is_trained)


def _run(
    sweep: Sweep,
    store: Store,
    monitor: Monitor,
    launch: Launch,
    is_wanted: Callable[[Entry], bool],
) -> Launched:
    """Runs the missing trials that are wanted, under the sweep's lock; publishes the results."""
    _require_main_guard()
    launch.require_places(sweep, store)
    version = code_version()
    ids = launch.ids(sweep)
    options = replace(options_for(sweep, cpu=launch.cpu), tags=version)
    retrying = replace(options, retry_failed=launch.retry_failed)
    planned = entries(sweep, store, retrying, ids)
    todo = [entry for entry in planned if entry.missing and is_wanted(entry)]
    missing = [entry.trial for entry in todo]
    running = options_for_entries(todo, retrying)
    if launch.track and not (missing or launch.require_mlflow):
        launch = replace(launch, track=not is_tracked(sweep, store))
    inline = not missing or launch.is_inline(missing, running)
    require_run(missing, running, inline=inline)
    with (
        store.sweep(sweep.name).run_lock(launch.shard),
        # They import while Ray starts, and then wait with 130 MB each.
        processes.helpers() if launch.write_report and not inline else nullcontext(),
        ThreadPoolExecutor(1) as aside,
        ExitStack() as started,
    ):
        running = running if inline else with_measured_gpus(missing, running)
        monitor.on_plan(len(planned), len(missing))
        with publishing(sweep, store, monitor, launch) as publisher:
            # Before anything is published, since Ray may fail to start.
            runner = started.enter_context(_runner(store, monitor, inline=inline))
            publisher.begin()
            if missing:
                runner(missing, store, running, monitor, fail_fast=launch.fail_fast)
            ending = aside.submit(started.close)  # Ray ends while the report is written
        ending.result()  # raises what went wrong
    # With `retry_failed`, a trial that failed again would count as missing.
    return Launched(entries(sweep, store, options, ids), publisher.published)


def _require_main_guard() -> None:
    """Refuses a script that calls `nodebench.run` when it is imported.

    Raises:
        InputError: in a child process, in which `multiprocessing` imports the script.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError(
            "this script calls `nodebench.run` when it is imported, and the processes that a run "
            'starts do import it. Put the call below `if __name__ == "__main__":`'
        )


@contextmanager
def _runner(store: Store, monitor: Monitor, *, inline: bool) -> Generator[Runner]:
    """The runner of this process, or that of Ray's workers, which end with the context."""
    if inline:
        yield run_inline
        return
    monitor.on_phase("joining the cluster" if is_cluster_named() else "starting Ray")
    quieten()  # Ray reads its settings when it is imported
    from nodebench.execution.ray_tune import workers

    with workers(store.root) as runner:
        yield runner


@dataclass(frozen=True)
class Timed:
    """The result of a timing pass: by trial id, its row, or its problem if it has no row.

    `untimed` is the number of cells that have no finished trial with a checkpoint.
    """

    rows: dict[str, Row]
    problems: dict[str, str]
    untimed: int
    published: Published


def time_cells(
    sweep: SweepSource,
    store: Store | None = None,
    monitor: Monitor | None = None,
    publication: Publication | None = None,
    *,
    steps: int = 10,
    rounds: int = 5,
    cpu: bool = False,
    on_round: Callable[[int], None] = lambda _round: None,
) -> Timed:
    """Times a training step of every cell, one cell at a time, in several `rounds`.

    Each cell is represented by its first finished trial that still has its checkpoint. The store
    is by default that of NODEBENCH_RUNS. The report and MLflow are updated, unless `publication`
    says otherwise.

    Raises:
        InputError: if no cell has such a trial, and as in `run`.
    """
    sweep, store = resolved(sweep, store)
    monitor, publication = monitor or Monitor(), publication or Publication()
    publication.require_places(sweep, store)
    options = options_for(sweep, cpu=cpu)
    trials = _timeable(sweep, store, options)
    require_all(trials, options, inline=True)
    from nodebench.execution.timing import time_trials

    with (
        store.sweep(sweep.name).run_lock(),
        publishing(sweep, store, monitor, publication) as publisher,
    ):
        publisher.begin()
        rows, problems = time_trials(
            trials, store, options, steps=steps, rounds=rounds, on_round=on_round
        )
    untimed = len({trial.cell.key for trial in sweep.trials}) - len(trials)
    return Timed(rows, problems, untimed, publisher.published)


def _timeable(sweep: Sweep, store: Store, options: RunOptions) -> list[Trial]:
    """Each cell's first finished trial that still has its checkpoint."""
    of_cell: dict[str, Trial] = {}
    finished = [entry.trial for entry in entries(sweep, store, options) if entry.is_finished]
    for trial in finished:
        if store.folder(trial.id).checkpoint.exists():
            of_cell.setdefault(trial.cell.key, trial)
    if not of_cell:
        why = "no trial has finished yet, so there is nothing to time"
        if finished:
            why = (
                "the checkpoints have been deleted, so there is nothing to time. To train again, "
                f"delete trials' folders, such as `{store.folder(finished[0].id).path}`, and run "
                "the sweep"
            )
        raise InputError(f"{sweep.name}: {why}")
    return list(of_cell.values())


def reproduce(
    trial_id: SweepSource,
    sweep: SweepSource | None = None,
    store: Store | None = None,
    *,
    cpu: bool = False,
    on_epoch: Callable[[Row], None] = lambda _row: None,
) -> Reproduction:
    """Runs a recorded trial again, alone in this process, and compares it with its record.

    A trial is given by its id or the start of the id; without a sweep, it is one of a sweep in the
    store. The two may be given the other way round. A trial that only the store has, since the
    sweep was changed, is run with the sweep's limits and evaluated under its solvers.

    The record comes from the store, by default that of NODEBENCH_RUNS. If the store has none, it
    comes from the report in whose folder the sweep file is.

    Raises:
        InputError: if the trial is unknown, has no record, or cannot be run here.
    """
    from nodebench.execution.reproduction.second_run import run_again

    trial_id, sweep = in_order(trial_id, sweep)
    store = store or default_store()
    sweep, store = resolved(sweep or sweep_of(trial_id, store), store)
    table = Path(sweep.origin.file).with_name("results.csv")
    trial = recorded_trial(trial_id, sweep, store, table)
    record = recorded_run(trial, store, table)
    options = options_for(sweep, cpu=cpu)
    require_all([trial], options, inline=True)
    return run_again(trial, record, options, on_epoch)


def code_version() -> dict[str, str]:
    """The git commit of nodebench's source, and whether anything but reports is uncommitted.

    Empty for an installed package, which is identified by its version.
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
