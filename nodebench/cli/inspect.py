"""The commands that inspect sweeps and train nothing."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from nodebench import api, planning
from nodebench.cli.app import app
from nodebench.cli.options import (
    AsJson,
    Changes,
    Cpu,
    SizeOption,
    Small,
    Source,
    SweepPath,
    TrialId,
    grouped,
    open_sweep,
)
from nodebench.cli.stream import err, say
from nodebench.cli.text import change_text, cost_text, forecast_text, line, store_text
from nodebench.data import files
from nodebench.errors import InputError, counted
from nodebench.execution.costs import probed
from nodebench.execution.runner import Backend
from nodebench.planning import RunOptions
from nodebench.planning.diff import OTHER_CODE, change, inputs, nearest
from nodebench.planning.doubts import doubts
from nodebench.planning.estimate import Cost, slots
from nodebench.planning.lookup import find, in_order
from nodebench.planning.options import options_for
from nodebench.planning.plan import Entry, Standing, options_for_entries, orphans
from nodebench.planning.seed_packs import has_equal_steps, obstacle, packs
from nodebench.planning.selection import Selection
from nodebench.report.figures import processes
from nodebench.spec import Trial
from nodebench.store import Store
from nodebench.store.locations import data_root, default_store
from nodebench.sweep import Sweep
from nodebench.sweep.safe_yaml import inline


@app.command()
@grouped
def plan(
    source: Source,
    selection: Selection,
    diff: Annotated[
        str | None,
        typer.Option(
            metavar="OLD", help="List the changes, --set included, since this older file."
        ),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Time a few steps per configuration and predict the cost."),
    ] = False,
    cpu: Cpu = False,
    as_json: AsJson = False,
) -> None:
    """List a sweep's trials and the state of each. Trains nothing."""
    sweep, store = source.load(), default_store()
    is_part = not selection.is_whole or selection.retry_failed
    if diff is not None and (probe or as_json or is_part):
        raise InputError("`--diff` compares two files: leave out all options but the sweep's")
    if probe and as_json:
        raise InputError("`--probe` excludes `--json`")
    if diff is not None:
        say(change_text(change(source.load_other(diff), sweep)))
        return
    demand = replace(options_for(sweep), retry_failed=selection.retry_failed)
    entries = planning.entries(sweep, store, demand, selection.ids(sweep))
    left = orphans(sweep, store, entries) if selection.is_whole else {}
    if as_json:
        print(plan_json(sweep, entries, left))
        return
    say(plan_text(sweep, entries, left, store))
    if probe:
        costs, whole = probed(sweep, store, selection, cpu=cpu)
        say(costs_text(sweep, entries, costs))
        if whole:
            say(forecast_text(whole))
            if sweep.resources.pack_seeds != 1:
                say("packed seeds take less time: the steps of single trials were timed")


def plan_text(sweep: Sweep, entries: Sequence[Entry], left: Mapping[str, str], store: Store) -> str:
    """One line per trial, then remarks on the sweep, and the counts at the end."""
    lines = [line(sweep, entry) for entry in entries]
    lines += removed_text(left)
    parts = sorted({path for entry in entries for path in entry.trial.spec.import_paths})
    lines += [f"`run` will import `{path}`" for path in parts]
    lines += doubts(sweep)
    if gpus := sweep.resources.gpus:
        share = "a measured share" if gpus == "auto" else f"{gpus:g}"
        lines.append(f"each trial uses {share} of a GPU; `run --cpu` uses none")
    todo = [entry for entry in entries if entry.missing]
    missing = [entry.trial for entry in todo]
    lines += retraining_text(entries)
    lines += missing_data_text(missing)
    options = options_for_entries(todo, options_for(sweep))
    if missing and sweep.resources.gpus:
        lines.append(recording_text(missing))
    has_seeds_to_pack = len({trial.cell for trial in missing}) < len(missing)
    if has_seeds_to_pack and sweep.resources.pack_seeds != 1:
        lines.append(packing_text(missing, options))
    if missing and Backend().is_inline(missing, options):
        lines.append("a single training: `run` starts no Ray for it, unless with `--no-inline`")
    lines.append(store_text(store))
    planned = counted(len(entries), "trial")
    lines.append(f"{sweep.name}: {planned}, {_to_do(todo)}")
    return "\n".join(lines)


MOST_REMOVED = 3
"""Removed trials that a plan lists."""


def removed_text(left: Mapping[str, str]) -> list[str]:
    """One line per trial that an earlier version of the file had; of many, their number."""
    if len(left) > MOST_REMOVED:
        return [f"{len(left)} trials of earlier versions of this file stay in the store (`--json`)"]
    return [f"{trial_id}  {'removed':<12} {label}" for trial_id, label in left.items()]


def _to_do(missing: Sequence[Entry]) -> str:
    """`9 to run`; if some are trained already, `1 to train, 8 to evaluate`."""
    trained = sum(entry.is_trained for entry in missing)
    if not trained:
        return f"{len(missing)} to run"
    training = [f"{len(missing) - trained} to train"] if trained < len(missing) else []
    return ", ".join([*training, f"{trained} to evaluate"])


def retraining_text(entries: Sequence[Entry]) -> list[str]:
    """A line if finished trials are trained again, which may take as long as their first time."""
    again = sum(entry.standing == Standing.RETRAINS for entry in entries)
    if not again:
        return []
    verb = "is" if again == 1 else "are"
    return [
        f"{counted(again, 'finished trial')} {verb} trained again from scratch, because evaluation "
        "points are missing and the checkpoint was deleted (`nodebench gc`) or not imported"
    ]


def missing_data_text(trials: Sequence[Trial]) -> list[str]:
    """One line per data set whose files are missing, with the remedy."""
    root, data_sets = data_root(), files.distinct(trial.spec.data for trial in trials)
    # Data sets that differ only in `train_size` lack the same files.
    lacking = {files.missing(data, root): data for data in data_sets}
    return [f"{what}: {files.remedy(data)}" for what, data in lacking.items() if what]


@app.command()
def why(
    trial: TrialId,
    source: Annotated[
        str | None,
        typer.Argument(metavar="SWEEP", help="Its sweep, if the trial is not in the store yet."),
    ] = None,
    changes: Changes = None,
    size: SizeOption = "full",
    small: Small = False,
) -> None:
    """Show how a trial differs from the most similar finished one, and what goes into its id."""
    store = default_store()
    trial, given = in_order(trial, source)
    sweep = open_sweep(str(given), changes, size=size, small=small) if given else None
    found = find(trial, store, sweep)
    relative = nearest(found, store)
    if relative is None:
        say("the store has no other finished trial")
    else:
        say(f"most similar finished trial: {_named(relative[0], store, sweep)}. Differences:")
        for difference in relative[1] or (OTHER_CODE,):
            say(f"  {difference}")
    say(f"the id {_named(found.id, store, sweep)} is a hash of:")
    for path, value in inputs(found).items():
        say(f"  {path}: {inline(value)}")


def _named(trial_id: str, store: Store, sweep: Sweep | None) -> str:
    """`dc49f01cc5bd (euler 2 · s0 in quickstart)`; only the id if no sweep has planned it."""
    planned = {trial.id: sweep.label(trial) for trial in sweep.trials} if sweep else {}
    if sweep and trial_id in planned:
        return f"{trial_id} ({planned[trial_id]} in {sweep.name})"
    label, name = store.label(trial_id)
    return f"{trial_id} ({label} in {name})" if label else trial_id


@app.command()
def report(
    source: SweepPath,
    reference: Annotated[
        str | None,
        typer.Option(
            "--compare",
            metavar="OTHER",
            help="Print a comparison with another sweep, a report folder or COMMIT:FOLDER instead.",
        ),
    ] = None,
    changes: Changes = None,
    size: SizeOption = "full",
    small: Small = False,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Output folder.", show_default="reports/<sweep>")
    ] = None,
    from_mlflow: Annotated[
        bool, typer.Option("--from-mlflow", help="Read MLflow instead of the store.")
    ] = False,
) -> None:
    """Write a sweep's report (page, figures, results.csv), or compare it with another."""
    if reference is not None:
        if changes or folder or from_mlflow or small or size != "full":
            raise InputError(
                "`--compare` excludes `--set`, `--size`, `--small`, `--out` and `--from-mlflow`: "
                "write both reports first, and compare their folders"
            )
        say(api.compare(reference, source))
        return
    sweep = open_sweep(source, changes, size=size, small=small)
    problems: list[str] = []
    with err.status("writing the report"), processes.helpers():
        page = api.write_report(
            sweep, default_store(), folder, from_mlflow=from_mlflow, on_problem=problems.append
        )
    say(str(page))
    for problem in problems:
        err.print(f"a figure is missing in the report: {problem}", markup=False, highlight=False)


@app.command()
def scoreboard() -> None:
    """Write reports/README.md: each published number and claim in sweeps/, next to our result."""
    say(str(api.write_scoreboard()))


def packing_text(trials: Sequence[Trial], options: RunOptions) -> str:
    """How many trials are packed into common runs, and why the others are not."""
    here = slots(options.resources, gpus=1)
    together = [len(pack) for pack in packs(trials, options, here)]
    packed = [size for size in together if size > 1]
    alone = len(trials) - sum(packed)
    if not packed:
        return f"no seeds are packed{_packing_obstacles(trials)}"
    runs = counted(len(packed), "run")
    text = f"{sum(packed)} trials are packed into {runs} of up to {max(together)} seeds"
    return f"{text}; {alone} run individually{_packing_obstacles(trials)}" if alone else text


def recording_text(trials: Sequence[Trial]) -> str:
    """How many trials use CUDA graphs on a GPU, and why the others do not."""
    recorded = sum(has_equal_steps(trial.spec) for trial in trials)
    trained = counted(len(trials), "trial")
    return f"CUDA graphs on a GPU: {recorded} of {trained}{_packing_obstacles(trials)}"


def _packing_obstacles(trials: Sequence[Trial]) -> str:
    counts = Counter(why for trial in trials if (why := obstacle(trial.spec)))
    reasons = [f"{count} because {why}" for why, count in sorted(counts.items())]
    return f" ({'; '.join(reasons)})" if reasons else ""


def detail(entry: Entry, store: Store) -> str:
    """Why a trial ended, or how far it has got."""
    if entry.result is not None:
        return f": {entry.result.reason or 'trained'} ({_clock(entry.result.finished)})"
    history = store.folder(entry.trial.id).history()
    if not history:
        return ""
    train, last = entry.trial.spec.train, history[-1]
    length = f" of {train.epochs}" if train.epochs else ""
    return f": epoch {last['epoch']}{length} ({_clock(last['time'])})"


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def costs_text(sweep: Sweep, entries: list[Entry], costs: Mapping[str, Cost | str]) -> str:
    """The cost of a trial of each missing cell, one line per cell."""
    cells = {
        entry.trial.cell.key: sweep.cell_label(entry.trial) for entry in entries if entry.missing
    }
    return "\n".join(f"  {label}: {cost_text(costs[cell])}" for cell, label in cells.items())


def plan_json(sweep: Sweep, entries: list[Entry], orphans: dict[str, str]) -> str:
    """A plan as JSON for scripts."""
    rows: list[dict[str, Any]] = [
        {
            "id": entry.trial.id,
            "label": sweep.label(entry.trial),
            "state": entry.state,
            "standing": entry.standing,
            "outcome": entry.result.outcome if entry.result else None,
            "missing": entry.missing,
            "continues": entry.continues,
            "settings": entry.trial.settings,
        }
        for entry in entries
    ]
    left = [{"id": trial_id, "label": label} for trial_id, label in orphans.items()]
    return json.dumps(
        {"sweep": sweep.name, "trials": rows, "orphans": left, "doubts": doubts(sweep)}
    )
