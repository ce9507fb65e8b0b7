"""Showing a run's progress: live on a terminal, a line a trial elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from nodebench.cli.stream import err, say
from nodebench.execution.launch import Outcome, Timed
from nodebench.store import Store
from nodebench.store.result import Row
from nodebench.sweep import Sweep


class ProgressMonitor:
    """A `runner.Monitor` for people; `verb` says what is done with trials."""

    def __init__(self, sweep: Sweep, store: Store, console: Console, verb: str):
        self._sweep, self._verb = sweep, verb
        self._labels = {trial.id: sweep.label(trial) for trial in sweep.trials}
        self._lengths = {trial.id: trial.spec.train for trial in sweep.trials}
        self._headlines = {trial.id: trial.spec.data.headline for trial in sweep.trials}
        self._store, self._console = store, console
        self._missing = self._ended = 0
        self._tasks: dict[str, TaskID] = {}
        self._live = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not self._live,
        )
        self._overall = self._progress.add_task(f"[bold]{sweep.name}", total=None, note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self._progress.stop()

    def on_plan(self, trials: int, missing: int) -> None:
        """Prints how many trials are to be done, and begins the bar over all."""
        self._missing = missing
        self._progress.update(self._overall, total=missing)
        text = f"{self._sweep.name}: {trials} trials, {missing} to {self._verb}"
        self._console.print(text, markup=False, highlight=False)

    def on_start(self, trial_id: str) -> None:
        """Shows a bar for the trial."""
        if trial_id not in self._tasks:
            length = self._lengths[trial_id]
            total = length.epochs or length.iterations
            name = escape(self._labels[trial_id])
            self._tasks[trial_id] = self._progress.add_task(f"  {name}", total=total, note="")
        self._count()

    def on_epoch(self, trial_id: str, row: Row) -> None:
        """Moves the trial's bar."""
        if trial_id not in self._tasks:
            return
        done = row["epoch"] if self._lengths[trial_id].epochs else row["iteration"]
        headline = self._headlines[trial_id]
        note = f"{headline.replace('_', ' ')} {row[headline]:.3f}" if headline in row else ""
        self._progress.update(self._tasks[trial_id], completed=done, note=note)

    def on_end(self, trial_id: str, problem: str | None) -> None:
        """Replaces the trial's bar by a line."""
        if trial_id in self._tasks:
            self._progress.remove_task(self._tasks.pop(trial_id))
        self._ended += 1
        self._progress.update(self._overall, completed=self._ended)
        self._count()
        ending = problem or self._ending(trial_id)
        self._console.print(
            f"[{self._ended}/{self._missing}] {self._labels[trial_id]}: {ending}",
            markup=False, highlight=False,
        )  # fmt: skip

    def on_tracking(self, problem: str | None) -> None:
        """Prints that MLflow cannot be written, or can again."""
        text = f"{problem}. Training goes on" if problem else "MLflow is back"
        self._console.print(text, markup=False, highlight=False)

    def _ending(self, trial_id: str) -> str:
        result = self._store.folder(trial_id).result()
        if result is None:
            return "no result"
        headline = self._headlines[trial_id]
        value = result.summary.get(headline)
        # A clock that was set back is not worth a negative duration.
        seconds = f"{max(0.0, result.finished - result.started):.1f} s"
        if value is None:
            return f"{result} in {seconds}: {result.reason}"
        return f"{result}, {headline.replace('_', ' ')} {value:.4f}, {seconds}"

    def _count(self) -> None:
        running = len(self._tasks)
        left = self._missing - self._ended - running
        self._progress.update(self._overall, note=f"{running} running, {left} left")


def say_published(sweep: Sweep, done: Outcome | Timed) -> None:
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
