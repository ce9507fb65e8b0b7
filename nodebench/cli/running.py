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
    ReplaceOther,
    RequireMlflow,
    RetryFailed,
    Shard,
    Size,
    Small,
    SweepPath,
    Track,
    WriteReport,
)  # fmt: skip
from nodebench.cli.progress import ProgressMonitor
from nodebench.cli.stream import talk_on
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
    size: Size = "full",
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
    replace: ReplaceOther = False,
) -> None:
    """Run what is missing of a sweep, then report. The same command resumes."""
    if require_mlflow and not track:
        raise InputError("`--require-mlflow` and `--no-track` contradict each other")
    sweep = sources.load_sweep(source, overrides=changes or (), size=size, small=small)
    outcome = _launched(
        sweep, default_store(),
        only=only or (), shard=shard, retry_failed=retry_failed, fail_fast=fail_fast,
        inline=inline, cpu=cpu, track=track, require_mlflow=require_mlflow,
        write_report=write_report, replace_other=replace,
    )  # fmt: skip
    _conclude(sweep, outcome.entries)
    raise typer.Exit(_status(outcome))


@app.command()
def evaluate(
    source: SweepPath,
    changes: Changes = None,
    size: Size = "full",
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
    replace: ReplaceOther = False,
) -> None:
    """Evaluate what is trained under the solvers of `evaluate:`, where points are missing."""
    if weights is None:
        sweep = sources.load_sweep(source, overrides=changes or (), size=size, small=small)
    else:
        sweep = sources.foreign(
            source, weights, overrides=changes or (), size=sources.size_of(size, small=small)
        )
    if not sweep.evaluate:
        raise InputError(f"{source}: has no `evaluate:`, so there is nothing to evaluate")
    store = default_store()
    outcome = _launched(
        sweep, store,
        only=only or (), shard=shard, inline=inline, cpu=cpu, track=track,
        write_report=write_report, replace_other=replace, train=False,
    )  # fmt: skip
    verdicts = outcomes.verdicts(sweep, store)
    for entry in outcome.entries:
        if entry.trial.id in verdicts:
            say(f"{wording.line(sweep, entry)}: {wording.verdict_text(verdicts[entry.trial.id])}")
    _conclude(sweep, outcome.entries)
    raise typer.Exit(_status(outcome))


@app.command()
def time(
    source: SweepPath,
    changes: Changes = None,
    size: Size = "full",
    small: Small = False,
    steps: Annotated[int, typer.Option(min=1, help="Steps that a round times.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds over all cells.")] = 5,
    cpu: Cpu = False,
    track: Track = True,
    write_report: WriteReport = True,
    replace: ReplaceOther = False,
) -> None:
    """Time a training step of every cell, alone on its device, for the report's seconds per epoch.

    Of each cell one finished trial is stepped, with the weights at its end. Let nothing else run.
    """
    sweep = sources.load_sweep(source, overrides=changes or (), size=size, small=small)
    with _interruptible(), ProgressMonitor(sweep, default_store(), out, "time") as monitor:
        timed = launch.time_cells(
            sweep, default_store(), monitor,
            steps=steps, rounds=rounds, cpu=cpu, track=track, write_report=write_report,
            replace_other=replace,
            on_round=lambda number: err.print(f"round {number} of {rounds}", highlight=False),
        )  # fmt: skip
    say(wording.timed_text(sweep, timed))
    _say_published(sweep, timed)
    raise typer.Exit(1 if timed.problems or timed.report_problem else 0)


@app.command()
def repro(
    source: SweepPath,
    trial: Annotated[str, typer.Argument(metavar="ID", help="A trial's id, or its start.")],
    changes: Changes = None,
    size: Size = "full",
    small: Small = False,
    cpu: Cpu = False,
) -> None:
    """Run one recorded trial again, here and alone, and compare it metric by metric."""
    store = default_store()

    def count(row: Row) -> None:
        if err.is_terminal:
            err.print(f"epoch {row['epoch']}", highlight=False)

    found = launch.reproduce(
        source,
        trial,
        store,
        overrides=changes or (),
        size=sources.size_of(size, small=small),
        cpu=cpu,
        on_epoch=count,
    )
    say(wording.reproduction_text(found))
    raise typer.Exit(0 if found.agrees else 1)


@app.command()
def sync(
    source: SweepPath,
    changes: Changes = None,
    size: Size = "full",
    small: Small = False,
    folders: From = None,
    replace: ReplaceOther = False,
) -> None:
    """Write to MLflow what it lacks of a sweep; --from takes another machine's trials over first.

    A trial that both stores have is kept where it is further. One that came to different ends is
    named, ours is kept, and the status is 1.
    """
    sweep = sources.load_sweep(source, overrides=changes or (), size=size, small=small)
    store = default_store()
    conflicts = 0
    for folder, merged in zip(
        folders or (),
        upkeep.merge(sweep, store, folders or (), replace_other=replace),
        strict=True,
    ):
        say(wording.merged_text(sweep, folder, merged))
        conflicts += len(merged.conflicts)
    synced = outcomes.sync(sweep, store, replace_other=replace)
    say(f"{sweep.name}: {len(synced)} runs in MLflow are up to date")
    raise typer.Exit(1 if conflicts else 0)


def _launched(sweep: Sweep, store: Store, *, train: bool = True, **how: Any) -> Outcome:
    """Runs what is missing, with progress; says where the report is."""
    for doubt in doubts(sweep):
        err.print(doubt, markup=False, highlight=False)
    verb = "run" if train else "evaluate"
    with _interruptible(), ProgressMonitor(sweep, store, out, verb) as monitor:
        outcome = launch.run(sweep, store, monitor, train=train, **how)
    _say_published(sweep, outcome)
    return outcome


def _status(outcome: Outcome) -> int:
    return 0 if outcome.complete and not outcome.report_problem else 1


@contextmanager
def _interruptible() -> Iterator[None]:
    talk_on()
    try:
        yield
    except KeyboardInterrupt:
        err.print("interrupted; the same command goes on from here", markup=False)
        raise typer.Exit(INTERRUPTED) from None


def _say_published(sweep: Sweep, done: Outcome | Timed) -> None:
    """Says where the report is, and what it and MLflow lack."""
    if done.tracking_problem:
        err.print(
            f"MLflow is not up to date: {done.tracking_problem}. `nodebench sync` catches up",
            markup=False,
        )
    if done.report_problem:
        err.print(
            f"the report could not be written ({done.report_problem}); all trials are kept, and "
            f"`nodebench report {sweep.name}` catches up",
            markup=False, highlight=False,
        )  # fmt: skip
    if done.page:
        say(f"report: {done.page}")
    for problem in done.undrawn:
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
