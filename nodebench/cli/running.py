"""The verbs that run sweeps, or go on with what was run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from nodebench import launch, outcomes, sources, upkeep
from nodebench.cli import wording
from nodebench.cli.app import INTERRUPTED, app, err, out, say
from nodebench.cli.options import (
    Changes,
    Cpu,
    FailFast,
    From,
    Inline,
    Only,
    RequireMlflow,
    RetryFailed,
    Shard,
    Small,
    SweepPath,
    Track,
    WriteReport,
)  # fmt: skip
from nodebench.cli.progress import ProgressMonitor
from nodebench.doubts import doubts
from nodebench.errors import InputError
from nodebench.launch import Outcome, Timed
from nodebench.places import default_store
from nodebench.planning import Entry
from nodebench.store import Store
from nodebench.sweep import Sweep
from nodebench.trial_folder import Row


@app.command()
def run(
    source: SweepPath,
    changes: Changes = None,
    small: Small = False,
    only: Only = None,
    shard: Shard = "1/1",
    retry_failed: RetryFailed = False,
    fail_fast: FailFast = False,
    inline: Inline = False,
    cpu: Cpu = False,
    track: Track = True,
    require_mlflow: RequireMlflow = False,
    write_report: WriteReport = True,
) -> None:
    """Run what is missing of a sweep, then report. The same command resumes."""
    if require_mlflow and not track:
        raise InputError("`--require-mlflow` and `--no-track` contradict each other")
    sweep = sources.load_sweep(source, overrides=changes or (), small=small)
    outcome = _launched(
        sweep, default_store(),
        only=only or (), shard=shard, retry_failed=retry_failed, fail_fast=fail_fast,
        inline=inline, cpu=cpu, track=track, require_mlflow=require_mlflow,
        write_report=write_report,
    )  # fmt: skip
    _conclude(sweep, outcome.entries)
    raise typer.Exit(0 if outcome.complete else 1)


@app.command()
def evaluate(
    source: SweepPath,
    changes: Changes = None,
    small: Small = False,
    weights: Annotated[
        Path | None,
        typer.Option(help="Evaluate these instead: a state_dict, or a trial's checkpoint."),
    ] = None,
    only: Only = None,
    shard: Shard = "1/1",
    inline: Inline = False,
    cpu: Cpu = False,
    track: Track = True,
    write_report: WriteReport = True,
) -> None:
    """Evaluate what is trained under the solvers of `evaluate:`, where points are missing."""
    if weights is None:
        sweep = sources.load_sweep(source, overrides=changes or (), small=small)
    else:
        sweep = sources.foreign(source, weights, overrides=changes or (), small=small)
    if not sweep.evaluate:
        raise InputError(f"{source}: has no `evaluate:`, so there is nothing to evaluate")
    store = default_store()
    outcome = _launched(
        sweep, store,
        only=only or (), shard=shard, inline=inline, cpu=cpu, track=track,
        write_report=write_report, train=False,
    )  # fmt: skip
    verdicts = outcomes.verdicts(sweep, store)
    for entry in outcome.entries:
        if entry.trial.id in verdicts:
            say(f"{wording.line(sweep, entry)}: {wording.verdict_text(verdicts[entry.trial.id])}")
    _conclude(sweep, outcome.entries)
    raise typer.Exit(0 if outcome.complete else 1)


@app.command()
def time(
    source: SweepPath,
    changes: Changes = None,
    small: Small = False,
    steps: Annotated[int, typer.Option(min=1, help="Steps that a round times.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds over all cells.")] = 5,
    cpu: Cpu = False,
    track: Track = True,
    write_report: WriteReport = True,
) -> None:
    """Time a training step of every cell, alone on its device, for the report's seconds per epoch.

    Of each cell one finished trial is stepped, with the weights at its end. Let nothing else run.
    """
    sweep = sources.load_sweep(source, overrides=changes or (), small=small)
    with _interruptible(), ProgressMonitor(sweep, default_store(), out, "time") as monitor:
        timed = launch.time_cells(
            sweep, default_store(), monitor,
            steps=steps, rounds=rounds, cpu=cpu, track=track, write_report=write_report,
            on_round=lambda number: err.print(f"round {number} of {rounds}", highlight=False),
        )  # fmt: skip
    say(wording.timed_text(sweep, timed))
    _say_published(timed)
    raise typer.Exit(1 if timed.problems else 0)


@app.command()
def repro(
    source: SweepPath,
    trial: Annotated[str, typer.Argument(metavar="ID", help="A trial's id, or its start.")],
    changes: Changes = None,
    small: Small = False,
    cpu: Cpu = False,
) -> None:
    """Run one recorded trial again, here and alone, and compare it metric by metric."""
    store = default_store()

    def count(row: Row) -> None:
        if err.is_terminal:
            err.print(f"epoch {row['epoch']}", highlight=False)

    found = launch.reproduce(
        source, trial, store, overrides=changes or (), small=small, cpu=cpu, on_epoch=count
    )
    say(wording.reproduction_text(found))
    raise typer.Exit(0 if found.agrees else 1)


@app.command()
def sync(
    source: SweepPath, changes: Changes = None, small: Small = False, folders: From = None
) -> None:
    """Write to MLflow what it lacks of a sweep; --from takes another machine's trials over first.

    A trial that both stores have is kept where it is further. One that came to different ends is
    named, ours is kept, and the status is 1.
    """
    sweep = sources.load_sweep(source, overrides=changes or (), small=small)
    store = default_store()
    conflicts = 0
    for folder, merged in zip(
        folders or (), upkeep.merge(sweep, store, folders or ()), strict=True
    ):
        say(wording.merged_text(sweep, folder, merged))
        conflicts += len(merged.conflicts)
    say(f"{sweep.name}: {len(outcomes.sync(sweep, store))} runs in MLflow are up to date")
    raise typer.Exit(1 if conflicts else 0)


def _launched(sweep: Sweep, store: Store, *, train: bool = True, **how: Any) -> Outcome:
    """Runs what is missing, with progress; says where the report is."""
    for doubt in doubts(sweep):
        err.print(doubt, markup=False, highlight=False)
    verb = "run" if train else "evaluate"
    with _interruptible(), ProgressMonitor(sweep, store, out, verb) as monitor:
        outcome = launch.run(sweep, store, monitor, train=train, **how)
    _say_published(outcome)
    return outcome


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        err.print("interrupted; the same command goes on from here", markup=False)
        raise typer.Exit(INTERRUPTED) from None


def _say_published(found: Outcome | Timed) -> None:
    """Says where the report is, and what it and MLflow lack."""
    if found.tracking_problem:
        err.print(
            f"MLflow is not up to date: {found.tracking_problem}. `nodebench sync` catches up",
            markup=False,
        )
    if found.page:
        say(f"report: {found.page}")
    for problem in found.undrawn:
        err.print(f"the report lacks a figure: {problem}", markup=False, highlight=False)


def _conclude(sweep: Sweep, entries: list[Entry]) -> None:
    """Announces every trial that did not finish."""
    for entry in entries:
        what = wording.line(sweep, entry)
        if entry.result is not None and not entry.is_finished:
            say(f"{what}: {entry.result}: {entry.result.reason}")
        elif entry.result is not None and entry.missing:
            say(f"{what}: its evaluation is incomplete; see `logs {entry.trial.id}`")
    untrained = sum(entry.missing and not entry.is_trained for entry in entries)
    if untrained:
        say(f"{untrained} trials are not trained: `nodebench run` trains them")
    finished = sum(entry.is_finished for entry in entries)
    say(f"{sweep.name}: {finished} of {len(entries)} trials finished")
