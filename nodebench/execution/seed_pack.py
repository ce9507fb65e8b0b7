"""Packs of trials that differ only in their seed: their steps are taken together, as one.

Each trial keeps its own store entry, checkpoint, history and outcome. If the next steps of some
trials do not fit together, each takes its own. One of them may, for example, have been interrupted
at another point, and reach the smaller last batch of its epoch before the others.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack

from nodebench.errors import StoreError
from nodebench.planning import RunOptions
from nodebench.spec import Trial
from nodebench.store import Store
from nodebench.store.rows import Row
from nodebench.training.steps.cuda_graph import graph_of
from nodebench.training.steps.step import Step, StepTaker, try_to_take
from nodebench.training.steps.vmapped import VmappedSteps
from nodebench.training.trial import attempt


class Pack:
    """A pack of trials; `problems` are the reasons why trials could not be run, by id."""

    def __init__(self, trials: Sequence[Trial], store: Store, options: RunOptions):
        self.trials, self._store, self._options = trials, store, options
        self._taker: StepTaker | None = (
            VmappedSteps() if len(trials) > 1 else graph_of(trials[0], options)
        )
        self.problems: dict[str, str] = {}

    def epochs(self) -> Generator[dict[str, Row], None, None]:
        """Trains and evaluates; yields, by trial id, the rows of trials that end an epoch together.

        If the generator is closed early, the trials can resume from their last checkpoints.
        """
        upcoming: dict[str, Step] = {}
        with ExitStack() as ends:
            attempts = {}
            for trial in self.trials:
                attempts[trial.id] = attempt(trial, self._store, self._options, len(self.trials))
                ends.callback(attempts[trial.id].close)
            while attempts:
                rows: dict[str, Row] = {}
                for trial_id in [t for t in attempts if t not in upcoming]:
                    item = self._next(trial_id, attempts[trial_id])
                    if item is None:
                        del attempts[trial_id]
                    elif isinstance(item, Step):
                        upcoming[trial_id] = item
                    else:
                        rows[trial_id] = item
                if rows:
                    yield rows
                elif upcoming and len(upcoming) == len(attempts):
                    self._take(upcoming)
                    upcoming.clear()

    def _take(self, upcoming: Mapping[str, Step]) -> None:
        """Takes steps that can be taken together; the others are left to their own training."""
        if self._taker is None:
            return
        problem = try_to_take(self._taker, list(upcoming.values()))
        if problem is not None:
            self._taker = None
            for trial_id in upcoming:
                self._store.folder(trial_id).log(f"plain steps are used: {problem}")

    def _next(self, trial_id: str, running: Iterator[Step | Row]) -> Step | Row | None:
        try:
            return next(running, None)
        except StoreError as error:  # another launch trains it; the others continue
            self.problems[trial_id] = str(error)
            return None

    @property
    def has_results(self) -> bool:
        """Whether every trial has a result; a failure is a result too."""
        results = (self._store.folder(trial.id).result() for trial in self.trials)
        return all(result is not None and not result.is_error for result in results)
