"""The commands about this machine: its data, its runs and its MLflow."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nodebench import api
from nodebench.cli.app import app
from nodebench.cli.options import AsJson, Changes, SizeOption, Small, TrialId, open_sweep
from nodebench.cli.stream import err, say
from nodebench.errors import DataError, StoreError, masked
from nodebench.execution.doctor import Case, examine
from nodebench.planning.garbage import KINDS, Item, Survey, Wish, bytes_of, remove, survey_store
from nodebench.spec.data import DATASETS, Dataset
from nodebench.store.locations import data_root, default_store, tracking_uri
from nodebench.sweep import field_reference
from nodebench.tracking.settings import configure_mlflow

if TYPE_CHECKING:
    from nodebench.data.load import Census


@app.command()
def data(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help=f"Any of {', '.join(DATASETS)}.")
    ],
    as_json: AsJson = False,
) -> None:
    """Download data sets to NODEBENCH_DATA, verify them and count their samples."""
    rows: list[dict[str, Any]] = []
    missing = False
    for data_set in api.data_sets(names):
        try:
            found = api.fetch(data_set)
        except DataError as error:  # the others are still fetched
            err.print(str(error), markup=False, highlight=False)
            missing = True
            continue
        rows.append(census_row(data_set, found))
        if not as_json:
            say(census_text(data_set, found))
    if as_json:
        print(json.dumps({"data": rows}))
    raise typer.Exit(2 if missing else 0)


@app.command()
def logs(
    trial: TrialId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing new lines.")
    ] = False,
) -> None:
    """Print a trial's log, and the traceback if it crashed."""
    folder = default_store().find(trial)
    if not folder.log_file.exists():
        raise StoreError(f"`{folder.path.name}` has no log here: imported results come without")
    with folder.log_file.open(encoding="utf-8") as file:
        sys.stdout.write(file.read())
        sys.stdout.write(folder.error() or "")
        while follow:
            sys.stdout.write(file.read())
            sys.stdout.flush()
            time.sleep(0.5)


@app.command()
def ui(
    source: Annotated[
        str | None, typer.Argument(metavar="SWEEP", help="Open this sweep's list of runs.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000,
    size: SizeOption = "full",
    small: Small = False,
) -> None:
    """Serve the MLflow UI for this machine's runs, or print the address of your MLflow server."""
    store, page = default_store(), ""
    uri = tracking_uri(store)
    if source is not None:
        configure_mlflow()
        from nodebench.tracking.tracker import page_of

        page = f"/{page_of(open_sweep(source, size=size, small=small), store)}"
    if uri.startswith("http"):
        say(f"{masked(uri).rstrip('/')}{page}")
        return
    if source is None:
        configure_mlflow()
        from nodebench.tracking.client import client_for

        client_for(store)  # creates MLflow's file, and corrects its paths after a move
    command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    say(f"http://127.0.0.1:{port}{page}")
    # Not as an argument, because every user of this machine can read those.
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
    os.execve(sys.executable, [sys.executable, *command], environment)


@app.command()
def gc(
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Include checkpoints of finished trials.")
    ] = False,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Include trials no longer in any sweep.")
    ] = False,
    older_than: Annotated[
        float, typer.Option(metavar="DAYS", help="Only files unused for at least DAYS days.")
    ] = 0.0,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Only the least recently used files, until the store fits in SIZE (e.g. 10GB): "
            "checkpoints, unless other files are named.",
        ),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete the files instead of only listing them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List files that are safe to delete; with --delete, delete them.

    Without options, only temporary files that killed processes left behind are listed. The
    checkpoint of a finished trial is needed only to train it for longer or to evaluate it again.
    Results of trials still in a sweep, running trials and MLflow's files are never deleted.
    """
    kinds = {"checkpoints": checkpoints, "orphans": orphans}
    wish = Wish(
        frozenset(kind for kind in KINDS if kinds.get(kind)),
        older_than,
        bytes_of(budget) if budget else None,
    )
    store = default_store()
    found = survey_store(store, wish, sorted(Path("sweeps").glob("*.yaml")))
    remaining = remove(store, found.chosen) if delete else []
    if as_json:
        print(survey_json(found, remaining, removed=delete))
    else:
        say(survey_text(found, remaining, removed=delete))
    left = found.size_bytes - sum(i.size_bytes for i in found.chosen if i not in remaining)
    fits = wish.budget_bytes is None or left <= wish.budget_bytes
    if not fits:
        err.print(excess_text(found, wish, left, removed=delete), markup=False, highlight=False)
    raise typer.Exit(0 if fits else 1)


@app.command()
def schema(
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="Print the reference of all fields in Markdown instead."),
    ] = False,
) -> None:
    """Print the JSON Schema of sweep files, for completion and validation in editors."""
    print(
        field_reference.page() if markdown else json.dumps(field_reference.json_schema(), indent=1),
        end="",
    )


@app.command()
def doctor(
    source: Annotated[
        str | None, typer.Argument(metavar="SWEEP", help="Also check what this sweep needs.")
    ] = None,
    changes: Changes = None,
    size: SizeOption = "full",
    small: Small = False,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray", help="Also check that Ray starts, or that RAY_ADDRESS can be joined."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check this machine: packages, GPU, folders, data, MLflow, Ray and running sweeps.

    The exit status is 1 if there is a problem.
    """
    sweep = open_sweep(source, changes, size=size, small=small) if source else None
    found = []
    for name, finding in examine(Case(default_store(), data_root(), sweep, ray)):
        found.append({"check": name, **asdict(finding)})
        if not as_json:
            cure = f". {finding.cure[:1].upper()}{finding.cure[1:]}" if finding.cure else ""
            say(f"{finding.level:<8} {name:<12} {finding.found}{cure}")
    if as_json:
        print(json.dumps({"checks": found}))
    raise typer.Exit(1 if any(row["level"] == "problem" for row in found) else 0)


def census_row(data_set: Dataset, found: Census) -> dict[str, Any]:
    """A data set's counts, as a row of JSON for scripts."""
    classes = zip(found.class_names, found.train, found.test, strict=True)
    return {
        "name": data_set.name,
        "origin": data_set.origin,
        "folder": str(found.folder) if found.folder else None,
        "train": sum(found.train),
        "test": sum(found.test),
        "classes": [{"name": name, "train": a, "test": b} for name, a, b in classes],
    }


def census_text(data_set: Dataset, found: Census) -> str:
    """A line for the data set, and one per class, or a single one if all are equally large."""
    place = f"in {found.folder}" if found.folder else f"{data_set.origin}, no files needed"
    if not found.class_names:
        return f"{data_set.name}: {place}"
    title = f"{data_set.name}: {sum(found.train):,} train, {sum(found.test):,} test; {place}"
    rows = list(zip(found.class_names, found.train, found.test, strict=True))
    if len(set(found.train)) == len(set(found.test)) == 1:
        rows = [(f"each of {len(rows)} classes", *rows[0][1:])]
    width = max(len("class"), *(len(name) for name, _, _ in rows))
    lines = [f"  {'class':<{width}}  {'train':>7}  {'test':>6}"]
    lines += [f"  {name:<{width}}  {train:>7,}  {test:>6,}" for name, train, test in rows]
    return "\n".join([title, *lines])


def size_text(size_bytes: int) -> str:
    """`1.2 GB`."""
    size, units = float(size_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def survey_text(found: Survey, remaining: list[Item], *, removed: bool) -> str:
    """A table of the deletable and the chosen files by kind; `remaining` were not deleted."""
    lines = [f"{'':<36} {'found':>22}   {'to delete':>22}"]
    for kind, what in KINDS.items():
        columns = [
            [item for item in items if item.kind == kind] for items in (found.items, found.chosen)
        ]
        lines.append(f"{what:<36} {_count(columns[0])}   {_count(columns[1])}")
    total = f"total (store: {size_text(found.size_bytes)})"
    lines.append(f"{total:<36} {_count(found.items)}   {_count(found.chosen)}")
    lines += [f"`{name}` cannot be planned here: all its trials stay" for name in found.unreadable]
    lines += [
        f"not deleted, since a process uses it or the system refuses: {item.paths[0]}"
        for item in remaining
    ]
    if not removed and found.chosen:
        lines.append("nothing was deleted: pass `--delete`")
    elif len(found.chosen) > len(remaining):
        lines.append("deleted")
    return "\n".join(lines)


def excess_text(found: Survey, wish: Wish, left_bytes: int, *, removed: bool) -> str:
    """How much stays although it exceeds the budget, and which options would let more of it go."""
    budget, verb = size_text(wish.budget_bytes or 0), "remain" if removed else "would remain"
    text = f"{size_text(left_bytes)} {verb}, which exceeds the budget of {budget}"
    more = [item for item in found.items if item not in found.chosen]
    if not more:
        return f"{text}: results of trials that a sweep plans, and files in use"
    refused = {item.kind for item in more if not wish.allows(item)}
    options = [f"`--{kind}`" for kind in KINDS if refused and kind in wish.allowed | refused]
    if not (refused and all(map(wish.is_unused, more))):
        options.append("a smaller `--older-than`")
    size = size_text(sum(item.size_bytes for item in more))
    return f"{text}. Of this, {size} can be deleted with {' and '.join(options)}"


def _count(items: Sequence[Item]) -> str:
    return f"{len(items):>10,} {size_text(sum(item.size_bytes for item in items)):>11}"


def survey_json(found: Survey, remaining: list[Item], *, removed: bool) -> str:
    """The deletable files, item by item, as JSON for scripts."""
    rows = [
        {
            "kind": item.kind,
            "trial": item.trial_id,
            "paths": [str(path) for path in item.paths],
            "bytes": item.size_bytes,
            "used": item.used,
            "chosen": item in found.chosen,
            "removed": removed and item in found.chosen and item not in remaining,
        }
        for item in found.items
    ]
    return json.dumps({"bytes": found.size_bytes, "items": rows, "unreadable": found.unreadable})
