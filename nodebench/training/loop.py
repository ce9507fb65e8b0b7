"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from typing import Any

from torch import nn

from nodebench.errors import DeadlineExceeded, Diverged, counted
from nodebench.ode.regularizers.table import Regularizers
from nodebench.spec import TrialSpec
from nodebench.spec.training import Train
from nodebench.store.rows import Row
from nodebench.training.adaptation import Adaptation
from nodebench.training.checkpoint import EpochSums, TrainState
from nodebench.training.machine import peak_memory, reset_peak_memory, synchronize
from nodebench.training.optimization import make_optimizer, set_learning_rate
from nodebench.training.steps.step import Step
from nodebench.training.task import Task

# The iterations between checks that the loss is finite: a check waits for the GPU.
CHECK_EVERY = {"cpu": 1, "cuda": 50}


def new_state(
    model: nn.Module, spec: TrialSpec, adaptation: Adaptation | None = None
) -> TrainState:
    """The state before the first iteration."""
    regularize = spec.train.regularize
    regularizers = Regularizers(regularize, spec.seed) if regularize else None
    return TrainState(model, make_optimizer(model, spec.train.optimizer), adaptation, regularizers)


def train(
    state: TrainState,
    task: Task[Any],
    spec: TrialSpec,
    deadline: float | None = None,
) -> Iterator[Step | Row]:
    """Trains from the current state to the end of the spec.

    Yields each step before it is taken, and after every epoch its row, which is then the last one
    in the state's history.

    Raises:
        TrialFailure: if the loss is no longer finite, a solve fails, or time is up.
    """
    total = (spec.train.epochs or 0) * task.batches_per_epoch
    if spec.train.iterations is not None:
        total = spec.train.iterations
    if total == 0 and not state.history:
        yield _recorded(state, _test_metrics(state.model, task))
    while state.iteration < total:
        row = yield from _train_epoch(state, task, spec.train, total, deadline)
        is_last = state.iteration >= total
        if is_last or (state.epoch + 1) % spec.train.test_every == 0:
            row |= _test_metrics(state.model, task)
        state.epoch += 1
        yield _recorded(state, row)


def _test_metrics(model: nn.Module, task: Task[Any]) -> Row:
    row: Row = {}
    for name in task.tests():
        found = task.evaluate(model, name)
        row |= {f"{name}_{measure}": value for measure, value in found.measures.items()}
    return row


def _recorded(state: TrainState, row: Row) -> Row:
    """Appends an epoch's row to the history."""
    where = {"epoch": state.epoch, "iteration": state.iteration}
    state.history.append({**where, **row, "time": time.time()})
    return state.history[-1]


def _train_epoch(
    state: TrainState,
    task: Task[Any],
    settings: Train,
    total: int,
    deadline: float | None,
) -> Generator[Step, None, Row]:
    device = task.device
    state.model.train()
    sums = state.sums
    if settings.reset_optimizer and not sums.batches:
        state.optimizer.state.clear()
    reset_peak_memory(device)
    synchronize(device)
    start = time.perf_counter() - sums.seconds
    for number, batch in enumerate(task.batches(state.epoch)):
        if number < sums.batches:
            continue  # it was taken before a checkpoint in mid-epoch
        if state.iteration >= total:
            break
        set_learning_rate(state, settings, task.batches_per_epoch, total)
        upcoming = Step(state, task, batch)
        yield upcoming
        upcoming.take()
        if state.iteration % CHECK_EVERY[device.type] == 0:
            _require_finite(state)
        if deadline is not None and time.monotonic() > deadline:
            done = counted(state.iteration, "iteration")
            raise DeadlineExceeded(f"the trial's time was up after {done}")
        sums.seconds = time.perf_counter() - start
    _require_finite(state)
    synchronize(device)
    sums.seconds = time.perf_counter() - start
    sums.peak_memory = max(sums.peak_memory, peak_memory(device))
    state.sums = EpochSums()
    return _epoch_row(state, sums)


def _epoch_row(state: TrainState, sums: EpochSums) -> Row:
    """The metrics of an epoch's training."""
    totals = {f"train_{name}": sum_ for name, sum_ in sums.measures.items()}
    totals |= {f"regularizer_{name}": sum_ for name, sum_ in sums.regularizers.items()}
    return {
        "lr": state.optimizer.param_groups[0]["lr"],
        "train_loss": sums.loss.item() / sums.samples,
        **{name: sum_.item() / sums.samples for name, sum_ in totals.items()},
        **_evaluations(sums),
        **(state.adaptation.end_epoch() if state.adaptation else {}),
        "epoch_s": sums.seconds,
        "peak_memory_bytes": sums.peak_memory,
    }


def _evaluations(sums: EpochSums) -> Row:
    """Evaluations per forward and backward pass, in total and for each of several blocks."""
    row: Row = {}
    if not sums.forward:
        return row  # a network without ODE blocks
    for name, counts in (("nfe_forward", sums.forward), ("nfe_backward", sums.backward)):
        row[name] = sum(counts) / sums.batches
        if len(counts) > 1:
            row |= {f"{name}.{block}": n / sums.batches for block, n in enumerate(counts)}
    row |= sums.steps.measures()
    if sums.regularizers:
        row["nfe_regularization"] = sums.regularizer_evaluations / sums.batches
    return row


def _require_finite(state: TrainState) -> None:
    sums = state.sums
    total = sum(sums.regularizers.values(), sums.loss).item()
    if not math.isfinite(total):
        raise Diverged(
            f"the training loss became {total} by iteration {state.iteration} "
            f"(epoch {state.epoch + 1})"
        )


def drop_last_test(history: list[Row], task: Task[Any], settings: Train) -> None:
    """Removes the tests from a training's last row if a longer training would not test there."""
    if history[-1]["epoch"] % settings.test_every:
        tested = tuple(f"{name}_" for name in task.tests())
        history[-1] = {k: v for k, v in history[-1].items() if not k.startswith(tested)}
