"""The verbs that look at sweeps, and train nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from nodebench import launch, outcomes, sources
from nodebench.cli import wording
from nodebench.cli.app import app, err, say
from nodebench.cli.options import (
    AsJson,
    Changes,
    Cpu,
    Only,
    Shard,
    Size,
    Small,
    SweepPath,
)  # fmt: skip
from nodebench.doubts import doubts
from nodebench.errors import InputError
from nodebench.places import default_store
from nodebench.planning import Entry, chosen, orphans
from nodebench.relatives import OTHER_CODE, change, find, inputs, nearest
from nodebench.store import Store
from nodebench.sweep import Sweep
from nodebench.sweepfile import SizeName


@app.command()
def plan(
    source: SweepPath,
    changes: Changes = None,
    size: Size = "full",
    small: Small = False,
    only: Only = None,
    shard: Shard = "1/1",
    diff: Annotated[
        str | None, typer.Option(metavar="OLD", help="Say what changed since this sweep file.")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Time some steps of each cell, to predict the cost.")
    ] = False,
    cpu: Cpu = False,
    as_json: AsJson = False,
) -> None:
    """List a sweep's trials and where each stands; trains nothing."""
    sweep, store, entries = _planned(source, changes, sources.size_of(size, small=small))
    if diff is not None and (probe or as_json or only or shard != "1/1"):
        raise InputError("`--diff` goes without `--probe`, `--json`, `--only` and `--shard`")
    if diff is not None:
        old = sources.load_sweep(diff, overrides=changes or (), size=size, small=small)
        say(wording.change_text(change(old, sweep)))
        return
    ids = chosen(sweep, only or (), shard)
    entries = [entry for entry in entries if entry.trial.id in ids]
    left = {} if only or shard != "1/1" else orphans(sweep, store)
    if as_json:
        print(wording.plan_json(sweep, entries, left))
        return
    for entry in entries:
        say(wording.line(sweep, entry))
    for trial_id, label in left.items():
        say(f"{trial_id}  {'orphaned':<12} {label}")
    parts = sorted({path for entry in entries for path in entry.trial.spec.import_paths})
    for path in parts:
        say(f"imports `{path}` when it runs")
    for doubt in doubts(sweep):
        say(doubt)
    if gpus := sweep.resources.gpus:
        share = "what it needs" if gpus == "auto" else f"{gpus:g}"
        say(f"each takes {share} of a GPU; `run --cpu` does without")
    missing = [entry.trial for entry in entries if entry.missing]
    if missing and sweep.resources.pack_seeds != 1:
        say(wording.packing_text(missing, launch.options_for(sweep)))
    say(f"{sweep.name}: {len(entries)} trials, {len(missing)} to run")
    if probe:
        costs, whole = launch.probed(sweep, store, only=only or (), shard=shard, cpu=cpu)
        say(wording.costs_text(sweep, entries, costs))
        if whole:
            say(wording.forecast_text(whole))
            if sweep.resources.pack_seeds != 1:
                say("seeds that are trained together take less than that: single steps were timed")


@app.command()
def why(
    trial: Annotated[str, typer.Argument(metavar="ID", help="A trial's id, or its start.")],
    source: Annotated[
        str | None, typer.Argument(metavar="SWEEP", help="The sweep that plans it, if it is new.")
    ] = None,
    changes: Changes = None,
    size: Size = "full",
    small: Small = False,
) -> None:
    """Show what a trial's id is made of, and what sets it apart from its nearest relative."""
    store = default_store()
    sweep = (
        sources.load_sweep(source, overrides=changes or (), size=size, small=small)
        if source
        else None
    )
    found = find(trial, store, sweep)
    say(f"{found.id}")
    for path, value in inputs(found).items():
        say(f"  {path}: {value}")
    relative = nearest(found, store)
    if relative is None:
        say("the store has no other finished trial")
        return
    say(f"nearest finished: {relative[0]}, of which differ")
    for difference in relative[1] or (OTHER_CODE,):
        say(f"  {difference}")


@app.command()
def status(
    source: SweepPath,
    changes: Changes = None,
    size: Size = "full",
    small: Small = False,
    as_json: AsJson = False,
) -> None:
    """Show how far a sweep is, also while it runs."""
    sweep, store, entries = _planned(source, changes, sources.size_of(size, small=small))
    if as_json:
        print(wording.plan_json(sweep, entries, orphans(sweep, store)))
        return
    for entry in entries:
        if entry.missing or not entry.is_finished:
            say(f"{wording.line(sweep, entry)}{wording.detail(entry, store)}")
    counts = Counter(wording.standing(entry) for entry in entries)
    say(f"{sweep.name}: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
    if left := launch.expected(sweep, store, entries):
        say(wording.forecast_text(left))


@app.command()
def report(
    source: SweepPath,
    reference: Annotated[
        str | None,
        typer.Option(
            "--compare",
            metavar="OTHER",
            help="Print how it differs from another: a sweep, a report's folder, COMMIT:FOLDER.",
        ),
    ] = None,
    changes: Changes = None,
    size: Size = "full",
    small: Small = False,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to. [default: reports/<sweep>]")
    ] = None,
    from_mlflow: Annotated[
        bool, typer.Option("--from-mlflow", help="Read MLflow instead of the store.")
    ] = False,
) -> None:
    """Write a sweep's report: page, figures, results.csv. Or compare it with another."""
    if reference is not None:
        say(outcomes.compare(reference, source))
        return
    sweep = sources.load_sweep(source, overrides=changes or (), size=size, small=small)
    problems: list[str] = []
    page = outcomes.write_report(
        sweep, default_store(), folder, from_mlflow=from_mlflow, on_problem=problems.append
    )
    say(str(page))
    for problem in problems:
        err.print(f"the report lacks a figure: {problem}", markup=False, highlight=False)


@app.command()
def scoreboard() -> None:
    """Write reports/README.md: every published number and claim of sweeps/, and what was found."""
    say(str(outcomes.write_scoreboard()))


def _planned(
    source: str, changes: list[str] | None, size: SizeName
) -> tuple[Sweep, Store, list[Entry]]:
    sweep = sources.load_sweep(source, overrides=changes or (), size=size)
    store = default_store()
    return sweep, store, launch.plan(sweep, store)
