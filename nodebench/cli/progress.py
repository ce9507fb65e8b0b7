"""Shows a run's progress: live bars on a terminal, otherwise one line per trial."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
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
from rich.text import Text

from nodebench.cli.stream import err, say
from nodebench.cli.tally import Tally
from nodebench.errors import counted
from nodebench.execution.launch import Launched
from nodebench.execution.publishing import Published
from nodebench.execution.runner import Monitor
from nodebench.store import Result, Store
from nodebench.store.rows import Row
from nodebench.sweep import Sweep

MOST_LINES_OF_ANSWER = 5

FAILED_STYLE = "red"

MOST_QUIET_S = 60.0
"""Without a terminal, an epoch is printed if nothing else has been for so long."""

COMPILING = "the first epoch compiles kernels, which are kept: some ten seconds"


class _Bars(Progress):
    """Progress bars with a line of text below them."""

    below = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars and the line."""
        yield from super().get_renderables()
        if self.below:
            yield Text(self.below, overflow="ellipsis", no_wrap=True)


class ProgressMonitor(Monitor):
    """A monitor that prints; `verb` names what is done with the trials."""

    def __init__(self, sweep: Sweep, store: Store, console: Console, verb: str):
        self._sweep, self._verb = sweep, verb
        self._labels = {trial.id: sweep.label(trial) for trial in sweep.trials}
        self._specs = {trial.id: trial.spec for trial in sweep.trials}
        self._store, self._console = store, console
        self._tally = Tally(sweep)
        self._is_planned = False
        self._missing = self._ended = 0
        self._tasks: dict[str, TaskID] = {}
        self._evaluated_before: dict[str, float] = {}
        """Seconds of evaluation until now, of each trial that was trained before it began here."""
        self._live = console.is_terminal
        self._progress = _Bars(
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
        self._lacks_kernels = False
        self._printed_at = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        if self._is_planned:
            self._count()
        self._progress.stop()

    def on_plan(self, trials: int, missing: int) -> None:
        """Prints how many trials there are to do, and starts the overall bar."""
        self._is_planned, self._missing = True, missing
        self._progress.update(self._overall, total=missing)
        if self._live:
            self._recall()
            self._lacks_kernels = bool(missing) and self._needs_kernels()
        planned = counted(trials, "trial")
        self._print(f"{self._sweep.name}: {planned}, {missing} to {self._verb}")

    def on_phase(self, phase: str) -> None:
        """Shows the phase until a trial begins; without a terminal, prints it."""
        if self._live:
            self._progress.update(self._overall, note=phase)
        else:
            self._print(phase)

    def on_start(self, trial_id: str) -> None:
        """Shows a bar for the trial."""
        if trial_id not in self._tasks:
            length = self._specs[trial_id].train
            total = length.epochs or length.iterations
            name = escape(self._labels[trial_id])
            self._tasks[trial_id] = self._progress.add_task(f"  {name}", total=total, note="")
            if self._was_trained(trial_id):
                self._evaluated_before[trial_id] = self._evaluated(trial_id)
            elif self._has_finished(trial_id):
                text = "its checkpoint is missing: trained again, to be evaluated"
                self._print(f"{self._labels[trial_id]}: {text}")
        self._count()

    def on_epoch(self, trial_id: str, row: Row) -> None:
        """Advances the trial's bar; without a terminal, prints the epoch once in a while."""
        if trial_id not in self._tasks:
            return
        if self._lacks_kernels and self._solves(trial_id):
            self._lacks_kernels = False
            self._count()
        train, headline = self._specs[trial_id].train, self._specs[trial_id].data.headline
        unit, total = ("epoch", train.epochs) if train.epochs else ("iteration", train.iterations)
        note = f"{headline.replace('_', ' ')} {row[headline]:.3f}" if headline in row else ""
        self._progress.update(self._tasks[trial_id], completed=row[unit], note=note)
        if not self._live and time.monotonic() - self._printed_at > MOST_QUIET_S:
            text = f"{self._labels[trial_id]}: {unit} {row[unit]} of {total}"
            self._print(f"{text}, {note}" if note else text)

    def on_end(self, trial_id: str, problem: str | None) -> None:
        """Replaces the trial's bar with a line."""
        if trial_id in self._tasks:
            self._progress.remove_task(self._tasks.pop(trial_id))
        self._ended += 1
        self._progress.update(self._overall, completed=self._ended)
        result = self._store.folder(trial_id).result()
        has_failed = self._tally.add(trial_id, None if problem else result)
        self._count()
        ending = problem or self._ending(trial_id, result)
        self._print(
            f"[{self._ended}/{self._missing}] {self._labels[trial_id]}: {ending}",
            style=FAILED_STYLE if has_failed else None,
        )

    def on_tracking(self, problem: str | None) -> None:
        """Prints that MLflow cannot be written, or that it can be written again."""
        self._print(f"{problem}. Training continues" if problem else "MLflow is back")

    def _print(self, text: str, style: str | None = None) -> None:
        self._console.print(text, markup=False, highlight=False, style=style)
        self._printed_at = time.monotonic()

    def _has_finished(self, trial_id: str) -> bool:
        result = self._store.folder(trial_id).result()
        return result is not None and result.is_finished

    def _was_trained(self, trial_id: str) -> bool:
        """Whether a trial that is begun has its final weights, and is only evaluated."""
        if self._specs[trial_id].train.iterations == 0:
            return True
        return self._has_finished(trial_id) and self._store.folder(trial_id).checkpoint.exists()

    def _evaluated(self, trial_id: str) -> float:
        """The seconds of evaluation so far."""
        points = self._store.folder(trial_id).evaluations()
        return sum(point.get("measuring_s", 0.0) for point in points)

    def _recall(self) -> None:
        """Counts earlier results towards the best so far."""
        for trial_id, result in self._store.results(self._labels).items():
            if result.is_finished:
                self._tally.add(trial_id, result)
        self._count()

    def _ending(self, trial_id: str, result: Result | None) -> str:
        if result is None:
            return "no result"
        headline = self._specs[trial_id].data.headline
        value = result.summary.get(headline)
        trained = f"{result.seconds:.1f} s"
        if value is None or not result.is_finished:
            return f"{result} in {trained}: {result.reason}"
        text = f"{result}, {headline.replace('_', ' ')} {value:.4f}"
        if trial_id not in self._evaluated_before:
            text += f", trained in {trained}"
        evaluated = self._evaluated(trial_id) - self._evaluated_before.get(trial_id, 0.0)
        return f"{text}, evaluated in {evaluated:.1f} s" if evaluated else text

    def _count(self) -> None:
        running = len(self._tasks)
        left = self._missing - self._ended - running
        failed = f", {self._tally.failed} failed" if self._tally.failed else ""
        note = f"{self._ended} done{failed}, {running} running, {left} left"
        compiles = self._lacks_kernels and any(map(self._solves, self._tasks))
        self._progress.below = COMPILING if compiles else self._tally.best
        self._progress.update(self._overall, note=note)

    def _needs_kernels(self) -> bool:
        """Whether trials need compiled kernels, and this machine has none yet."""
        if self._sweep.resources.gpus or not any(map(self._solves, self._specs)):
            return False
        from nodebench.ode.compiled.cache import has_kernels  # numba, in a quarter of a second

        return not has_kernels()

    def _solves(self, trial_id: str) -> bool:
        """Whether a trial solves an ODE of nodebench's own, as its kernels do on a CPU."""
        spec = self._specs[trial_id]
        return spec.solver is not None and not spec.import_paths


def say_answer(launched: Launched) -> None:
    """Prints the first lines of the report's answer and its last line, the cost."""
    lines = launched.published.answer
    if len(lines) > MOST_LINES_OF_ANSWER:
        lines = [*lines[: MOST_LINES_OF_ANSWER - 1], lines[-1]]
    for text in lines:
        say(text)


def say_published(sweep: Sweep, done: Published) -> None:
    """Prints where the report is, and what is missing in the report or in MLflow."""
    if done.tracking_problem:
        err.print(
            f"MLflow is not up to date: {done.tracking_problem}. `nodebench sync` writes the rest",
            markup=False,
        )
    if done.report_problem:
        err.print(
            f"the report could not be written ({done.report_problem}); all trials are kept, and "
            f"`nodebench report {sweep.name}` writes it later",
            markup=False, highlight=False,
        )  # fmt: skip
    if done.page:
        say(f"report: {done.page}")
    for problem in done.undrawn:
        err.print(f"a figure is missing in the report: {problem}", markup=False, highlight=False)
