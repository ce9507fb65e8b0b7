"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from nodebench import uncompiled
from nodebench.checkpoint import EpochSums, Hook, TrainState
from nodebench.errors import DeadlineExceeded, Diverged, TrialFailure
from nodebench.machine import peak_memory, reset_peak_memory, synchronize
from nodebench.ode.block import take_evaluations
from nodebench.spec import Cosine, Milestones, Optimizer, Schedule, Train, TrialSpec
from nodebench.task import Loss, Task
from nodebench.trial_folder import Row

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}

# How often a loss that is not finite is looked for, in iterations: looking waits for a GPU.
CHECK_EVERY = {"cpu": 1, "cuda": 50}


@dataclass
class Step:
    """One batch's step, which a training is about to take: now, its state can be saved.

    Whoever iterates over a training may take the step in its stead, and says so by `finish`.
    """

    state: TrainState
    task: Task[Any]
    batch: Any
    taken: bool = False

    def take(self) -> None:
        """Forward, backward, and the optimizer's update, unless the step has been taken."""
        if self.taken:
            return
        state = self.state
        loss = self.task.loss(state.model, self.batch)
        forward = take_evaluations(state.model)
        state.optimizer.zero_grad()
        loss.mean.backward()  # type: ignore[no-untyped-call]
        backward = take_evaluations(state.model)
        if hook := state.hook:
            nfe = sum(forward)
            hook.after_backward(state.model, self.task, self.batch, loss, nfe, state.iteration)
        self.finish(loss, forward, backward)

    def finish(self, loss: Loss, forward: list[int], backward: list[int]) -> None:
        """What is left once gradients are there: the update, and the epoch's sums.

        `forward` and `backward` are the evaluations of each ODE block.
        """
        state = self.state
        assert state.sums is not None
        state.sums.count(forward, backward)
        uncompiled.step(state.optimizer)
        state.sums.add(loss)
        state.iteration += 1
        self.taken = True


class Taker(Protocol):
    """What takes steps in the stead of their trainings, where that is faster."""

    def take(self, steps: Sequence[Step]) -> None:
        """Takes those that it can, and leaves the others as they are."""


def taken_by(taker: Taker, steps: Sequence[Step]) -> str | None:
    """Lets a taker take steps; what it is not able to do, if that may be so again.

    Nothing of a step that failed is left: its own training takes it, or meets the failure.
    """
    problem = None
    try:
        taker.take(steps)
    except TrialFailure:
        pass
    except Exception as error:  # noqa: BLE001 - a way to be faster is no reason to fail
        problem = f"{type(error).__name__}: {error}"
    for step in steps:
        if not step.taken:
            take_evaluations(step.state.model)
    return problem


def new_state(model: nn.Module, spec: TrialSpec, hook: Hook | None = None) -> TrainState:
    """The state before the first iteration."""
    return TrainState(model, _optimizer(model, spec.train.optimizer), hook)


def train(
    state: TrainState,
    task: Task[Any],
    spec: TrialSpec,
    deadline: float | None = None,
) -> Iterator[Step | Row]:
    """Trains to the end of the spec, from wherever the state is.

    Yields each step before it is taken, and after every epoch a row, which is then the last of
    the state's history.

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


def drop_last_test(history: list[Row], task: Task[Any], settings: Train) -> None:
    """Makes a training's last row the one of a longer training, which may not test there."""
    if history[-1]["epoch"] % settings.test_every:
        tested = tuple(f"{name}_" for name in task.tests())
        history[-1] = {k: v for k, v in history[-1].items() if not k.startswith(tested)}


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
    if state.sums is None:
        state.sums = EpochSums(torch.zeros((), device=device))
        if settings.reset_optimizer:
            state.optimizer.state.clear()
    sums = state.sums
    take_evaluations(state.model)
    reset_peak_memory(device)
    synchronize(device)
    start = time.perf_counter() - sums.seconds
    for number, batch in enumerate(task.batches(state.epoch)):
        if number < sums.batches:
            continue  # it came before a checkpoint in mid-epoch
        if state.iteration >= total:
            break
        _set_learning_rate(state, settings, task.batches_per_epoch, total)
        upcoming = Step(state, task, batch)
        yield upcoming
        upcoming.take()
        if state.iteration % CHECK_EVERY[device.type] == 0:
            _require_finite(state)
        if deadline is not None and time.monotonic() > deadline:
            raise DeadlineExceeded(f"the trial's time was up after {state.iteration} iterations")
        sums.seconds = time.perf_counter() - start
    _require_finite(state)
    synchronize(device)
    seconds = time.perf_counter() - start
    state.sums = None
    return {
        "lr": state.optimizer.param_groups[0]["lr"],
        "train_loss": sums.loss.item() / sums.samples,
        **{f"train_{name}": sum_.item() / sums.samples for name, sum_ in sums.measures.items()},
        **_evaluations(sums),
        **(state.hook.metrics() if state.hook else {}),
        "epoch_s": seconds,
        "peak_memory_bytes": max(sums.peak_memory, peak_memory(device)),
    }


def _evaluations(sums: EpochSums) -> Row:
    """Evaluations per forward and per backward pass, in all and for each of several blocks."""
    row: Row = {}
    if not sums.forward:
        return row  # a network without ODE blocks
    for name, counts in (("nfe_forward", sums.forward), ("nfe_backward", sums.backward)):
        row[name] = sum(counts) / sums.batches
        if len(counts) > 1:
            row |= {f"{name}.{block}": n / sums.batches for block, n in enumerate(counts)}
    return row


def _require_finite(state: TrainState) -> None:
    assert state.sums is not None
    total = state.sums.loss.item()
    if not math.isfinite(total):
        raise Diverged(
            f"the training loss became {total} by iteration {state.iteration} "
            f"(epoch {state.epoch + 1})"
        )


# ---------------------------------------------------------------------------------- testing


def _test_metrics(model: nn.Module, task: Task[Any]) -> Row:
    row: Row = {}
    for name in task.tests():
        found = task.evaluate(model, name)
        row |= {f"{name}_{measure}": value for measure, value in found.measures.items()}
    return row


# ------------------------------------------------------------------------------ optimisation


def _optimizer(model: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    return OPTIMIZERS[settings.name](model.parameters(), **settings.model_dump(exclude={"name"}))


def _set_learning_rate(state: TrainState, settings: Train, per_epoch: int, total: int) -> None:
    unit = 1 if settings.iterations else per_epoch
    factor = learning_rate_factor(settings.schedule, state.iteration, unit, total)
    for group in state.optimizer.param_groups:
        group["lr"] = settings.optimizer.lr * factor


def learning_rate_factor(schedule: Schedule, iteration: int, unit: int, total: int) -> float:
    """What the learning rate is multiplied by at an iteration, counted from 0.

    `unit` is the number of iterations in the unit in which the schedule counts.
    """
    factor = 1.0
    if isinstance(schedule, Milestones):
        factor = schedule.gamma ** sum(iteration >= at * unit for at in schedule.at)
    elif isinstance(schedule, Cosine):
        half_wave = (1 + math.cos(math.pi * iteration / total)) / 2
        factor = schedule.final + (1 - schedule.final) * half_wave
    if iteration < schedule.warmup * unit:
        factor *= min(1.0, (iteration + 1) / (schedule.warmup * unit))
    return factor
