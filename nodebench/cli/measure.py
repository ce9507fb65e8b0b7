"""The commands that rerun recorded trials, to time or to compare them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from nodebench.cli.app import app
from nodebench.cli.interrupt import interruptible
from nodebench.cli.options import (
    Changes,
    Cpu,
    SizeOption,
    Small,
    Source,
    TrialId,
    grouped,
    open_sweep,
)
from nodebench.cli.progress import ProgressMonitor, say_published
from nodebench.cli.stream import err, out, say
from nodebench.errors import counted
from nodebench.execution import launch
from nodebench.execution.launch import Timed
from nodebench.execution.publishing import Publication
from nodebench.execution.reproduction.recorded_run import sweep_of
from nodebench.planning.lookup import in_order
from nodebench.store.locations import default_store
from nodebench.store.rows import BUSY, Row
from nodebench.sweep import Sweep

if TYPE_CHECKING:
    from nodebench.execution.reproduction.second_run import Comparison, Reproduction


@app.command()
@grouped
def time(
    source: Source,
    publication: Publication,
    steps: Annotated[int, typer.Option(min=1, help="Steps per configuration and round.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="Passes over all configurations.")] = 5,
    cpu: Cpu = False,
) -> None:
    """Time one training step of each configuration, one at a time, for the report.

    The steps start from the final weights of one finished trial per configuration.
    Run nothing else on the machine meanwhile.
    """
    sweep, store = source.load(), default_store()

    def say_round(number: int) -> None:
        err.print(f"round {number} of {rounds}", highlight=False)

    with interruptible(), ProgressMonitor(sweep, store, out, "time") as monitor:
        timed = launch.time_cells(
            sweep,
            store,
            monitor,
            publication,
            steps=steps,
            rounds=rounds,
            cpu=cpu,
            on_round=say_round,
        )
    say(timed_text(sweep, timed))
    say_published(sweep, timed.published)
    raise typer.Exit(1 if timed.problems or timed.published.report_problem else 0)


@app.command()
def repro(
    trial: TrialId,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SWEEP",
            help="Its sweep, or a report's folder. By default, a sweep in the store that has it.",
        ),
    ] = None,
    changes: Changes = None,
    size: SizeOption = "full",
    small: Small = False,
    cpu: Cpu = False,
) -> None:
    """Run a recorded trial again, in this process, and compare every metric with the record."""

    def count(row: Row) -> None:
        if err.is_terminal:
            err.print(f"epoch {row['epoch']}", highlight=False)

    store = default_store()
    trial, given = in_order(trial, source)
    sweep = open_sweep(str(given or sweep_of(trial, store)), changes, size=size, small=small)
    found = launch.reproduce(trial, sweep, store, cpu=cpu, on_epoch=count)
    say(reproduction_text(found))
    raise typer.Exit(0 if found.agrees else 1)


MOST_UNMATCHED = 4
"""The most metrics or evaluation points named in a line; the rest are counted."""


def timed_text(sweep: Sweep, timed: Timed) -> str:
    """The times of a step and of an epoch, one line per cell, below a line about the machine."""
    labels = {trial.id: sweep.cell_label(trial) for trial in sweep.trials}
    lines = []
    for row in list(timed.rows.values())[:1]:
        rounds = f"{counted(row['rounds'], 'round')} of {counted(row['steps'], 'step')}"
        threads = counted(row["threads"], "thread")
        lines.append(f"{sweep.name}: {rounds} on {row['hardware']}, {threads}")
        if row["load_before"] > BUSY:
            lines.append(
                f"the machine was busy (load {row['load_before']:.1f}), so these times are not "
                "comparable: repeat the measurement when it is idle"
            )
    lines += [f"  {labels[trial]}: {_step_text(row)}" for trial, row in timed.rows.items()]
    lines += [f"  {labels[trial]}: cannot be timed: {w}" for trial, w in timed.problems.items()]
    if timed.untimed:
        untimed = counted(timed.untimed, "configuration")
        lines.append(f"{untimed} without a finished trial that has a checkpoint")
    return "\n".join(lines)


def _step_text(row: Row) -> str:
    from nodebench.report.tables import three_digits  # pandas, which `time` has imported

    step, least, most = (1e3 * row[name] for name in ("step_s", "step_s_least", "step_s_most"))
    step, least, most, epoch = map(three_digits, (step, least, most, row["timed_epoch_s"]))
    return f"{step} ms per step ({least} to {most}), {epoch} s per epoch"


def reproduction_text(found: Reproduction) -> str:
    """One line per metric, recorded and now; then other differences and the verdict."""
    width = max((len(metric.name) for metric in found.metrics), default=0)
    lines = [
        f"{m.name:<{width}}  {m.recorded:<22.17g} {m.now:<22.17g} {_likeness(m)}"
        for m in found.metrics
    ]
    for what, names in (
        ("not recorded", found.unmatched),
        ("recorded, but the sweep does not evaluate it", found.unmeasured_points),
    ):
        if names:
            lines.append(f"{what}: {', '.join(names[:MOST_UNMATCHED])}{_and_more(names)}")
    lines += [f"failed now: {point}" for point in found.failed_points]
    lines += [
        f"{name}: {f'{then} (recorded)' if then else 'not recorded'}, {now} (now)"
        for name, then, now in found.environments
        if then or not found.agrees
    ]
    lines.append(f"outcome: {found.outcomes[0]} (recorded), {found.outcomes[1]} (now)")
    same = sum(metric.is_same_bits for metric in found.metrics)
    verdict = "reproduced" if found.agrees else "NOT reproduced"
    lines.append(f"{verdict}: {same} of {counted(len(found.metrics), 'metric')} bit-identical")
    return "\n".join(lines)


def _and_more(names: Sequence[str]) -> str:
    more = len(names) - MOST_UNMATCHED
    return f" and {more} more" if more > 0 else ""


def _likeness(metric: Comparison) -> str:
    if metric.is_same_bits:
        return "bit-identical"
    if metric.agrees:
        return "equal up to rounding"
    return f"differs by {metric.now - metric.recorded:.3g}"
