"""The command line: the verbs, their options, and everything that is printed."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from nodebench import launch, wording
from nodebench.data_settings import DATASETS
from nodebench.errors import DataError, InputError
from nodebench.launch import Outcome
from nodebench.plan import Entry
from nodebench.progress import ProgressMonitor
from nodebench.store import Store
from nodebench.sweep import Sweep

app = typer.Typer(
    help="Declarative sweeps and benchmarks for neural ODEs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

INTERRUPTED = 130

SweepPath = Annotated[
    str, typer.Argument(metavar="SWEEP", help="A sweep file, or the name of one in sweeps/.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Replace a field or an axis. Repeatable."),
]
Small = Annotated[bool, typer.Option("--small", help="The file's small variant.")]
Inline = Annotated[
    bool, typer.Option("--inline", help="One trial after the other in this process, no Ray.")
]
Cpu = Annotated[bool, typer.Option("--cpu", help="Use the CPU whatever the file says.")]
Track = Annotated[bool, typer.Option(help="Write to MLflow.")]
WriteReport = Annotated[bool, typer.Option("--report/--no-report", help="Write the report.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def plan(
    source: SweepPath, changes: Set = None, small: Small = False, as_json: AsJson = False
) -> None:
    """List a sweep's trials and where each stands; runs nothing."""
    sweep, _, entries = _planned(source, changes, small)
    if as_json:
        print(wording.plan_json(sweep, entries))
        return
    for entry in entries:
        _say(wording.line(sweep, entry))
    parts = sorted({path for entry in entries for path in entry.trial.spec.import_paths})
    for path in parts:
        _say(f"imports `{path}` when it runs")
    if sweep.resources.gpus:
        _say(f"each takes {sweep.resources.gpus:g} of a GPU; `run --cpu` does without")
    to_do = sum(entry.missing for entry in entries)
    _say(f"{sweep.name}: {len(entries)} trials, {to_do} to run")


@app.command()
def run(
    source: SweepPath,
    changes: Set = None,
    small: Small = False,
    inline: Inline = False,
    cpu: Cpu = False,
    track: Track = True,
    write_report: WriteReport = True,
) -> None:
    """Run what is missing of a sweep, then report. The same command resumes."""
    sweep, store, entries = _planned(source, changes, small)
    missing = sum(entry.missing for entry in entries)
    _say(f"{sweep.name}: {len(entries)} trials, {missing} to run")
    outcome = _launched(
        sweep, store, missing,
        inline=inline, cpu=cpu, track=track, write_report=write_report,
    )  # fmt: skip
    _conclude(sweep, outcome.entries)
    raise typer.Exit(0 if outcome.complete else 1)


@app.command()
def evaluate(
    source: SweepPath,
    changes: Set = None,
    small: Small = False,
    weights: Annotated[
        Path | None,
        typer.Option(help="Evaluate these instead: a state_dict, or a trial's checkpoint."),
    ] = None,
    inline: Inline = False,
    cpu: Cpu = False,
    track: Track = True,
    write_report: WriteReport = True,
) -> None:
    """Evaluate what is trained under the solvers of `evaluate:`, where points are missing."""
    if weights is None:
        sweep = launch.load_sweep(source, overrides=changes or (), small=small)
    else:
        sweep = launch.foreign(source, weights, overrides=changes or (), small=small)
    if not sweep.evaluate:
        raise InputError(f"{source}: has no `evaluate:`, so there is nothing to evaluate")
    store = launch.default_store()
    entries = launch.plan(sweep, store)
    to_do = sum(entry.missing and entry.is_trained for entry in entries)
    _say(f"{sweep.name}: {len(entries)} trials, {to_do} to evaluate")
    outcome = _launched(
        sweep, store, to_do,
        inline=inline, cpu=cpu, track=track, write_report=write_report, train=False,
    )  # fmt: skip
    verdicts = launch.verdicts(sweep, store)
    for entry in outcome.entries:
        if entry.trial.id in verdicts:
            _say(f"{wording.line(sweep, entry)}: {wording.verdict_text(verdicts[entry.trial.id])}")
    _conclude(sweep, outcome.entries)
    raise typer.Exit(0 if outcome.complete else 1)


@app.command()
def status(
    source: SweepPath, changes: Set = None, small: Small = False, as_json: AsJson = False
) -> None:
    """Show how far a sweep is, also while it runs."""
    sweep, store, entries = _planned(source, changes, small)
    if as_json:
        print(wording.plan_json(sweep, entries))
        return
    for entry in entries:
        if entry.state != "done" or not entry.is_finished:
            _say(f"{wording.line(sweep, entry)}{wording.detail(entry, store)}")
    counts = Counter(wording.standing(entry) for entry in entries)
    _say(f"{sweep.name}: " + ", ".join(f"{n} {name}" for name, n in counts.items()))


@app.command()
def report(
    source: SweepPath,
    changes: Set = None,
    small: Small = False,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to. [default: reports/<sweep>]")
    ] = None,
    from_mlflow: Annotated[
        bool, typer.Option("--from-mlflow", help="Read MLflow instead of the store.")
    ] = False,
) -> None:
    """Write a sweep's report: page, figures, results.csv."""
    sweep = launch.load_sweep(source, overrides=changes or (), small=small)
    _say(str(launch.report(sweep, launch.default_store(), folder, from_mlflow=from_mlflow)))


@app.command()
def sync(source: SweepPath, changes: Set = None, small: Small = False) -> None:
    """Write to MLflow what it lacks of a sweep."""
    sweep = launch.load_sweep(source, overrides=changes or (), small=small)
    count = len(launch.sync(sweep, launch.default_store()))
    _say(f"{sweep.name}: {count} runs in MLflow are up to date")


@app.command()
def data(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help=f"Of {', '.join(DATASETS)}.")
    ],
    as_json: AsJson = False,
) -> None:
    """Download and verify data sets, and count their samples. NODEBENCH_DATA says where to."""
    rows: list[dict[str, Any]] = []
    missing = False
    for data_set in launch.data_sets(names):
        try:
            found = launch.fetch(data_set)
        except DataError as error:  # the others are fetched all the same
            err.print(str(error), markup=False, highlight=False)
            missing = True
            continue
        rows.append(wording.census_row(data_set, found))
        if not as_json:
            _say(wording.census_text(data_set, found))
    if as_json:
        print(json.dumps({"data": rows}))
    raise typer.Exit(2 if missing else 0)


@app.command()
def logs(
    trial: Annotated[str, typer.Argument(metavar="ID", help="A trial's id, or its start.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it is written.")] = False,
) -> None:
    """Print a trial's log, and the traceback if it crashed."""
    folder = launch.default_store().find(trial)
    with folder.log_file.open(encoding="utf-8") as file:
        sys.stdout.write(file.read())
        if (folder.path / "error.txt").exists():
            sys.stdout.write((folder.path / "error.txt").read_text(encoding="utf-8"))
        while follow:
            sys.stdout.write(file.read())
            sys.stdout.flush()
            time.sleep(0.5)


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000) -> None:
    """Serve MLflow's pages with this machine's runs."""
    from nodebench.tracking import tracking_uri

    store = launch.default_store()
    command = ["-m", "mlflow", "server", "--backend-store-uri", tracking_uri(store)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    _say(f"http://127.0.0.1:{port}")
    os.execv(sys.executable, [sys.executable, *command])


def main() -> None:
    """The console script: our errors become messages, and exit statuses say how it went."""
    # A user's own models and data sets are importable from where they start nodebench.
    sys.path.append(os.getcwd())
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except InputError as error:
        err.print(str(error), markup=False, highlight=False)
        sys.exit(2)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _planned(
    source: str, changes: list[str] | None, small: bool
) -> tuple[Sweep, Store, list[Entry]]:
    sweep = launch.load_sweep(source, overrides=changes or (), small=small)
    store = launch.default_store()
    return sweep, store, launch.plan(sweep, store)


def _launched(sweep: Sweep, store: Store, to_do: int, **how: bool) -> Outcome:
    """Runs what is missing, with progress; says where the report is."""
    try:
        with ProgressMonitor(sweep, store, to_do, out) as monitor:
            outcome = launch.run(sweep, store, monitor, **how)
    except KeyboardInterrupt:
        err.print("interrupted; the same command goes on from here", markup=False)
        raise typer.Exit(INTERRUPTED) from None
    if outcome.tracking_problem:
        err.print(
            f"MLflow is not up to date: {outcome.tracking_problem}. `nodebench sync` catches up",
            markup=False,
        )
    if outcome.page:
        _say(f"report: {outcome.page}")
    return outcome


def _conclude(sweep: Sweep, entries: list[Entry]) -> None:
    """Announces every trial that did not finish."""
    for entry in entries:
        what = wording.line(sweep, entry)
        if entry.result is not None and not entry.is_finished:
            _say(f"{what}: {entry.result}: {entry.result.reason}")
        elif entry.result is not None and entry.missing:
            _say(f"{what}: its evaluation is incomplete; see `logs {entry.trial.id}`")
    untrained = sum(entry.missing and not entry.is_trained for entry in entries)
    if untrained:
        _say(f"{untrained} trials are not trained: `nodebench run` trains them")
    finished = sum(entry.is_finished for entry in entries)
    _say(f"{sweep.name}: {finished} of {len(entries)} trials finished")


def _say(text: str) -> None:
    print(text, flush=True)
