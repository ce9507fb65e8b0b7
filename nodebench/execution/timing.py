"""The timing pass: how long a training step takes when it has its device to itself.

Trials that shared a machine give comparable accuracies, but not comparable speeds. Here, one trial
at a time is stepped. It starts from its final weights, so that an adaptive solver takes the same
steps as at the end of training, and has a learning rate of 0, so that the weights do not change.
Each round covers all trials, so that a drift in the machine's speed favours none of them.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from nodebench.data.load import load_data
from nodebench.errors import StoreError, TrialFailure
from nodebench.planning import RunOptions
from nodebench.spec import Trial, TrialSpec
from nodebench.spec.data import Dataset
from nodebench.store import Store
from nodebench.store.rows import Row
from nodebench.training.checkpoint import EpochSums, TrainState, read_checkpoint, restore
from nodebench.training.loop import new_state
from nodebench.training.machine import (
    environment,
    is_out_of_memory,
    memory_of,
    select_device,
    set_precision,
    shortage,
    synchronize,
)
from nodebench.training.preparation import prepare_trial
from nodebench.training.steps.cuda_graph import WARM_STEPS, graph_of
from nodebench.training.steps.step import Step, StepTaker, try_to_take
from nodebench.training.task import Task

WARM_STEPS_OF_A_ROUND = 2
"""Steps at the beginning of a round that do not count: they fill caches and allocate."""


def time_trials(
    trials: Sequence[Trial],
    store: Store,
    options: RunOptions,
    *,
    steps: int,
    rounds: int,
    on_round: Callable[[int], None] = lambda _round: None,
) -> tuple[dict[str, Row], dict[str, str]]:
    """Times a training step of finished trials, and stores the result with each trial.

    Returns, by trial id, the results, and the problems of trials that could not be timed.
    """
    torch.set_num_threads(options.resources.cpus)
    load_before = os.getloadavg()[0]
    data = _SharedData(options)
    clocks = [_Clock(trial, store, options, data) for trial in trials]
    for clock in clocks:
        clock.measure_memory()
    for number in range(rounds):
        for clock in clocks:
            clock.time(steps)
        on_round(number + 1)
    rows = {}
    for clock in (clock for clock in clocks if not clock.problem):
        with clock.problem_kept():
            row = {**clock.row(steps), "load_before": load_before}
            folder = store.folder(clock.trial.id)
            with folder.locked():
                folder.add_timing(row)
            rows[clock.trial.id] = row
    return rows, {clock.trial.id: clock.problem for clock in clocks if clock.problem}


class _SharedData:
    """The data of trials on their device, with one copy per data set and seed."""

    def __init__(self, options: RunOptions):
        self._options = options
        self.device = select_device(options.resources.gpu_share)
        self._loaded: dict[tuple[Dataset, int], Any] = {}

    def of(self, spec: TrialSpec) -> Any:
        """A trial's data."""
        key = spec.data, spec.seed
        if key not in self._loaded:
            self._loaded[key] = load_data(spec, self._options.data_root).to(self.device)
        return self._loaded[key]


class _Clock:
    """A trial, ready to be timed in several rounds.

    `problem` says why it cannot be timed: it ran out of memory, or its checkpoint is damaged.
    """

    def __init__(self, trial: Trial, store: Store, options: RunOptions, data: _SharedData):
        self.trial, self.problem = trial, ""
        self._options = options
        self._taker: StepTaker | None = None
        self.device = data.device
        self._evaluations = EpochSums()
        self._seconds: list[float] = []
        self._memory_bytes: int | None = None
        with self.problem_kept():
            self._state, self._task = _end_of_training(trial, store, options, data)
            self._batches = _without_end(self._task)

    @contextmanager
    def problem_kept(self) -> Generator[None]:
        """Turns a failure of this trial into its `problem`, so that others are still timed."""
        try:
            yield
        except (TrialFailure, StoreError) as failure:
            self.problem = str(failure)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.problem = shortage(error)

    def measure_memory(self) -> None:
        """Measures the memory that a step takes if its kernels are launched one by one."""
        if self.problem:
            return
        with self.problem_kept():
            step = Step(self._state, self._task, next(self._batches))
            step.take()
            self._state.optimizer.zero_grad()
            step = Step(self._state, self._task, step.batch)
            self._memory_bytes = memory_of(self.device, step.take)

    def time(self, steps: int) -> None:
        """Times a round; keeps the mean seconds of its steps."""
        if self.problem:
            return
        set_precision(self.trial.spec.train.precision)
        try:
            with self.problem_kept():
                # Made again for each round: recorded steps hold memory that the next clock needs.
                self._taker = graph_of(self.trial, self._options)
                warm = WARM_STEPS_OF_A_ROUND + (WARM_STEPS if self._taker else 0)
                self._run(warm, EpochSums())
                start = time.perf_counter()
                self._run(steps, self._evaluations)
                self._seconds.append((time.perf_counter() - start) / steps)
        finally:
            self._taker = None

    def _run(self, steps: int, sums: EpochSums) -> None:
        self._state.sums = sums
        for batch in itertools.islice(self._batches, steps):
            step = Step(self._state, self._task, batch)
            if self._taker and try_to_take(self._taker, [step]) is not None:
                self._taker = None  # a training would also do without it from then on
            step.take()
        synchronize(self.device)

    def row(self, steps: int) -> Row:
        """Seconds of a step and of an epoch: the median round, the fastest and the slowest."""
        middle, least, most = (f(self._seconds) for f in (statistics.median, min, max))
        sums, per_epoch = self._evaluations, self._task.batches_per_epoch
        counts = {"nfe_forward": sums.forward, "nfe_backward": sums.backward}
        return {
            **environment(self.device),
            "steps": steps,
            "rounds": len(self._seconds),
            "step_s": middle,
            "step_s_least": least,
            "step_s_most": most,
            "timed_epoch_s": middle * per_epoch,
            "step_memory_bytes": self._memory_bytes,
            **{name: sum(n) / sums.batches for name, n in counts.items() if n},
            "time": time.time(),
        }


def _end_of_training(
    trial: Trial, store: Store, options: RunOptions, shared: _SharedData
) -> tuple[TrainState, Task[Any]]:
    """A training state with a finished trial's weights, which its steps leave unchanged."""
    prepared = prepare_trial(_still(trial.spec), options, data=shared.of(trial.spec))
    prepared.limit_memory(prepared.model)
    restore(prepared.model, read_checkpoint(store.folder(trial.id).checkpoint))
    return new_state(prepared.model.train(), prepared.spec), prepared.task


def _still(spec: TrialSpec) -> TrialSpec:
    """The same spec with a learning rate of 0, whose steps cost the same."""
    optimizer = spec.train.optimizer.model_copy(update={"lr": 0.0})
    train = spec.train.model_copy(update={"optimizer": optimizer})
    return spec.model_copy(update={"train": train, "weights": None})


def _without_end(task: Task[Any]) -> Iterator[object]:
    """Training batches, epoch after epoch."""
    for epoch in itertools.count():
        yield from task.batches(epoch)
