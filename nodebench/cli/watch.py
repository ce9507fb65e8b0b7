"""The command `status`, which shows a sweep's progress once or while it runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from nodebench import api
from nodebench.cli.app import app
from nodebench.cli.inspect import detail, plan_json
from nodebench.cli.options import AsJson, Source, grouped
from nodebench.cli.stream import out, say
from nodebench.cli.tally import Tally
from nodebench.cli.text import endings_text, forecast_text, line, standing_text, store_text
from nodebench.errors import InputError
from nodebench.execution.costs import expected
from nodebench.planning.plan import Entry, orphans
from nodebench.store import Store
from nodebench.store.locations import default_store
from nodebench.store.result import TrialState
from nodebench.sweep import Sweep


@app.command()
@grouped
def status(
    source: Source,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Update until every trial has a result or you press Ctrl-C."),
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Time between updates of --watch.")
    ] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Show a sweep's progress, failures and remaining time, even while it is running."""
    if watch and as_json:
        raise InputError("`--watch` and `--json` contradict each other")
    sweep, store = source.load(), default_store()
    if watch:
        _watch(sweep, store, every)
        return
    entries = api.plan(sweep, store)
    if as_json:
        print(plan_json(sweep, entries, orphans(sweep, store, entries)))
        return
    for entry in entries:
        if entry.missing or not entry.is_finished:
            say(f"{line(sweep, entry)}{detail(entry, store)}")
    for text in [*endings_text(entries), store_text(store)]:
        say(text)
    say(_counts(sweep, entries))
    if left := expected(sweep, store, entries):
        say(forecast_text(left, is_running=_is_running(entries)))


def _watch(sweep: Sweep, store: Store, every: float) -> None:
    """Polls until nothing is left to run or the user interrupts; Ctrl-C is not an error."""
    try:
        if out.is_terminal and not out.is_dumb_terminal:
            _watch_on_screen(sweep, store, every)
        else:
            _watch_by_lines(sweep, store, every)
    except KeyboardInterrupt:
        return


def _watch_on_screen(sweep: Sweep, store: Store, every: float) -> None:
    """Redraws the same part of the screen at each poll."""
    entries = api.plan(sweep, store)
    with Live(_screen(sweep, store, entries), console=out, auto_refresh=False) as live:
        while _is_open(entries):
            time.sleep(every)
            entries = api.plan(sweep, store)
            live.update(_screen(sweep, store, entries), refresh=True)


def _watch_by_lines(sweep: Sweep, store: Store, every: float) -> None:
    """Prints a line at each poll, for logs and pipes."""
    while True:
        entries = api.plan(sweep, store)
        now = f"{time.strftime('%H:%M:%S')} {_counts(sweep, entries)}"
        say("; ".join([now, *_outlook(sweep, store, entries)]))
        if not _is_open(entries):
            return
        time.sleep(every)


def _is_open(entries: Sequence[Entry]) -> bool:
    """Whether any trial is missing or running."""
    return any(entry.missing or entry.state == TrialState.RUNNING for entry in entries)


def _screen(sweep: Sweep, store: Store, entries: Sequence[Entry]) -> Group:
    """The counts, the best result and the time left; then the failed and the running trials."""
    failed = [e for e in entries if e.result is not None and not e.is_finished]
    running = [e for e in entries if e.state == TrialState.RUNNING]
    return Group(
        Text(_counts(sweep, entries), style="bold"),
        *map(Text, _outlook(sweep, store, entries)),
        *(Text(f"{line(sweep, e)}{detail(e, store)}", style="red") for e in failed),
        *(Text(f"{line(sweep, e)}{detail(e, store)}") for e in running),
        Text(store_text(store), style="dim"),
    )


def _counts(sweep: Sweep, entries: Sequence[Entry]) -> str:
    counts = Counter(standing_text(entry) for entry in entries)
    return f"{sweep.name}: " + ", ".join(f"{n} {name}" for name, n in counts.items())


def _outlook(sweep: Sweep, store: Store, entries: Sequence[Entry]) -> list[str]:
    """The best result so far and the time left, as far as they are known."""
    tally = Tally(sweep)
    for entry in entries:
        if entry.result is not None:
            tally.add(entry.trial.id, entry.result)
    left = expected(sweep, store, entries)
    rest = forecast_text(left, is_running=_is_running(entries)) if left else ""
    return [text for text in (tally.best, rest) if text]


def _is_running(entries: Sequence[Entry]) -> bool:
    return any(entry.state == TrialState.RUNNING for entry in entries)
