"""The commands that run sweeps or resume them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from nodebench import api
from nodebench.cli import text
from nodebench.cli.app import app
from nodebench.cli.interrupt import interruptible
from nodebench.cli.options import From, ReplaceOther, Source, grouped
from nodebench.cli.progress import ProgressMonitor, say_answer, say_published
from nodebench.cli.stream import err, out, say
from nodebench.errors import InputError, counted
from nodebench.execution.launch import Launched, evaluate_sweep, run_sweep
from nodebench.execution.launch_keywords import Launch
from nodebench.planning.doubts import doubts
from nodebench.planning.plan import Entry
from nodebench.report.analysis.verdict import Verdict
from nodebench.store import Result, Store
from nodebench.store.locations import default_store
from nodebench.store.merge import Merged
from nodebench.store.rows import machine_text
from nodebench.sweep import Sweep


@app.command()
@grouped
def run(source: Source, launch: Launch) -> None:
    """Run the missing trials of a sweep, then write its report. Run it again to resume."""
    sweep, store = source.load(), default_store()
    with _watched(sweep, store, "run") as monitor:
        launched = run_sweep(sweep, store, monitor, launch)
    say_answer(launched)
    say_published(sweep, launched.published)
    _conclude(sweep, launched.entries)
    raise typer.Exit(_status(launched))


@app.command()
@grouped
def evaluate(
    source: Source,
    launch: Launch,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Evaluate the weights in this file: a state_dict or a trial's checkpoint."
        ),
    ] = None,
) -> None:
    """Evaluate trained networks under the solvers in `evaluate:`; skip what is already measured."""
    sweep = source.load() if weights is None else source.load_foreign(weights)
    if not sweep.evaluate:
        raise InputError(f"{source.source} has no `evaluate:`, so there is nothing to evaluate")
    store = default_store()
    with _watched(sweep, store, "evaluate") as monitor:
        launched = evaluate_sweep(sweep, store, monitor, launch)
    say_published(sweep, launched.published)
    verdicts = api.verdicts(sweep, store)
    for entry in launched.entries:
        if entry.trial.id in verdicts:
            say(f"{text.line(sweep, entry)}: {verdict_text(verdicts[entry.trial.id])}")
    _conclude(sweep, launched.entries)
    raise typer.Exit(_status(launched))


@app.command()
@grouped
def sync(source: Source, folders: From = None, replace: ReplaceOther = False) -> None:
    """Write a sweep's missing entries to MLflow; --from first merges another machine's trials.

    If both stores have a trial, the more advanced copy wins. Conflicting results are listed, the
    local one is kept, and the exit status is 1.
    """
    sweep, store = source.load(), default_store()
    conflicts = 0
    for folder, merged in zip(
        folders or (),
        api.merge(sweep, folders or (), store, replace_other=replace),
        strict=True,
    ):
        say(merged_text(sweep, folder, merged))
        conflicts += len(merged.conflicts)
    synced = api.sync(sweep, store, replace_other=replace)
    say(f"{sweep.name}: MLflow is up to date ({counted(len(synced), 'run')})")
    raise typer.Exit(1 if conflicts else 0)


@contextmanager
def _watched(sweep: Sweep, store: Store, verb: str) -> Generator[ProgressMonitor]:
    """Prints the sweep's warnings, then shows the progress of its trials."""
    for doubt in doubts(sweep):
        err.print(doubt, markup=False, highlight=False)
    with interruptible(), ProgressMonitor(sweep, store, out, verb) as monitor:
        yield monitor


def _status(launched: Launched) -> int:
    return 0 if launched.complete and not launched.published.report_problem else 1


def _conclude(sweep: Sweep, entries: list[Entry]) -> None:
    """Prints every trial that did not finish, what to do about it, and how many finished."""
    for entry in entries:
        what = text.line(sweep, entry)
        if entry.result is not None and not entry.is_finished:
            say(f"{what}: {entry.result}: {entry.result.reason}")
        elif entry.result is not None and entry.missing:
            say(f"{what}: evaluation incomplete; see `nodebench logs {entry.trial.id}`")
    for remedy in text.endings_text(entries):
        say(remedy)
    untrained = sum(entry.result is None and not entry.is_trained for entry in entries)
    if untrained:
        verb = "is" if untrained == 1 else "are"
        what = counted(untrained, "trial")
        say(f"{what} {verb} not trained yet: `nodebench run` trains the missing ones")
    finished = sum(entry.is_finished for entry in entries)
    say(f"{sweep.name}: {finished} of {counted(len(entries), 'trial')} finished")


def verdict_text(judged: Verdict) -> str:
    """`ResNet in disguise (own 0.99, limit 0.5, drop 0.49)`."""
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in judged.numbers.items())
    reason = f": {judged.reason}" if judged.reason else ""
    return f"{judged.word}{reason} ({numbers})" if numbers else f"{judged.word}{reason}"


def merged_text(sweep: Sweep, folder: Path, merged: Merged) -> str:
    """The result of a merge: a line of counts, and one per running or conflicting trial."""
    labels = {trial.id: sweep.label(trial) for trial in sweep.trials}
    counts: dict[str, Sequence[object]] = {
        "copied": merged.copied,
        "more advanced there": merged.replaced,
        "with more evaluation points there": merged.extended,
        "already here": merged.kept,
        "running, skipped": merged.running,
        "in conflict": merged.conflicts,
    }
    told = ", ".join(f"{len(trials)} {what}" for what, trials in counts.items() if trials)
    lines = [f"{folder}: {told or f'no trials of {sweep.name}'}"]
    lines += [f"{trial}  {'running':<12} {labels[trial]}" for trial in merged.running]
    for one in merged.conflicts:
        (name, (ours, theirs)), *more = one.metrics.items()
        and_more = f", and {counted(len(more), 'other metric')}" if more else ""
        lines.append(
            f"{one.trial_id}  {'conflict':<12} {labels[one.trial_id]}: {name} is {ours} here "
            f"({_machine(one.ours)}) and {theirs} there ({_machine(one.theirs)}){and_more}; "
            "ours is kept"
        )
    return "\n".join(lines)


def _machine(result: Result) -> str:
    """The machine that a result comes from: `host, AMD EPYC, 1 thread, torch 2.15.0`."""
    where = result.environments[-1] if result.environments else {}
    host = [where["host"]] if "host" in where else []
    return ", ".join([*host, machine_text(where)])
