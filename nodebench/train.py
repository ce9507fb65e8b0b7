"""The training loop, and the state that it can be resumed from."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nodebench.errors import DeadlineExceeded, Diverged
from nodebench.machine import peak_memory, reset_peak_memory, synchronize
from nodebench.ode.block import ode_blocks, take_evaluations
from nodebench.solver_settings import Solver
from nodebench.spec import Cosine, Milestones, Optimizer, Schedule, Train, TrialSpec
from nodebench.store import Row, write
from nodebench.task import Loss, Task

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}

# How often a loss that is not finite is looked for, in iterations: looking waits for a GPU.
CHECK_EVERY = {"cpu": 1, "cuda": 50}


class Hook(Protocol):
    """What a training does besides, between the backward pass and the optimiser's step."""

    def after_backward(
        self,
        model: nn.Module,
        task: Task[Any],
        batch: object,
        loss: Loss,
        nfe: int,
        iteration: int,
    ) -> None:
        """Acts, given the evaluations `nfe` of the forward pass; iterations count from 0.

        Its own evaluations are not those of training.
        """

    def metrics(self) -> Row:
        """What it adds to an epoch's row."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""

    def load_state_dict(self, model: nn.Module, values: dict[str, Any]) -> None:
        """Goes back to a checkpoint."""


@dataclass
class TrainState:
    """Everything that training changes."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    hook: Hook | None = None
    epoch: int = 0
    iteration: int = 0
    elapsed_s: float = 0.0
    history: list[Row] = field(default_factory=list)
    environments: list[dict[str, Any]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Writes a checkpoint, whole or not at all."""
        values = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "iteration": self.iteration,
            "elapsed_s": self.elapsed_s,
            "history": self.history,
            "environments": self.environments,
            "hook": self.hook.state_dict() if self.hook else None,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        write(path, lambda partial: torch.save(values, partial))

    def adopt_hook(self, path: Path) -> None:
        """Begins, of weights from a checkpoint, with the solver that its adaptation came to."""
        values = torch.load(path, map_location="cpu", weights_only=True)
        if self.hook and values.get("hook"):
            self.hook.load_state_dict(self.model, values["hook"])

    def load(self, path: Path, device: torch.device) -> None:
        """Goes back to a checkpoint."""
        values = torch.load(path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(values["model"])
        self.optimizer.load_state_dict(values["optimizer"])
        self.epoch, self.iteration = values["epoch"], values["iteration"]
        self.elapsed_s, self.history = values["elapsed_s"], values["history"]
        self.environments = values["environments"]
        if self.hook:
            self.hook.load_state_dict(self.model, values["hook"])
        torch.set_rng_state(values["random"])
        if device.type == "cuda" and values["random_cuda"]:
            torch.cuda.set_rng_state(values["random_cuda"][0])


def restore(model: nn.Module, checkpoint: Path) -> None:
    """Gives a model the weights and the solver of a checkpoint."""
    values = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model.load_state_dict(values["model"])
    if values["hook"]:
        for block in ode_blocks(model):
            block.solver = Solver.model_validate(values["hook"]["solver"])


def new_state(model: nn.Module, spec: TrialSpec, hook: Hook | None = None) -> TrainState:
    """The state before the first iteration."""
    return TrainState(model, _optimizer(model, spec.train.optimizer), hook)


def train(
    state: TrainState,
    task: Task[Any],
    spec: TrialSpec,
    deadline: float | None = None,
) -> Iterator[Row]:
    """Trains to the end of the spec, from wherever the state is; yields a row every epoch.

    A row is the last of the state's history when it is yielded.

    Raises:
        TrialFailure: if the loss is no longer finite, a solve fails, or time is up.
    """
    total = (spec.train.epochs or 0) * task.batches_per_epoch
    if spec.train.iterations is not None:
        total = spec.train.iterations
    if total == 0 and not state.history:
        yield _recorded(state, _test_metrics(state.model, task))
    while state.iteration < total:
        row = _train_epoch(state, task, spec.train, total, deadline)
        is_last = state.iteration >= total
        if is_last or (state.epoch + 1) % spec.train.test_every == 0:
            row |= _test_metrics(state.model, task)
        state.epoch += 1
        yield _recorded(state, row)


def _recorded(state: TrainState, row: Row) -> Row:
    """Appends an epoch's row to the history."""
    where = {"epoch": state.epoch, "iteration": state.iteration}
    state.history.append({**where, **row, "time": time.time()})
    return state.history[-1]


@dataclass
class _Sums:
    """Sums over the batches of an epoch, kept on the device."""

    loss: Tensor
    measures: dict[str, Tensor] = field(default_factory=dict)
    samples: int = 0
    batches: int = 0
    forward: list[int] = field(default_factory=list)
    backward: list[int] = field(default_factory=list)

    def add(self, loss: Loss) -> None:
        self.loss += loss.mean.detach() * loss.samples
        for name, value in loss.sums.items():
            self.measures[name] = self.measures.get(name, 0) + value
        self.samples += loss.samples
        self.batches += 1

    def count(self, forward: list[int], backward: list[int]) -> None:
        zeros = [0] * len(forward)
        self.forward = list(map(operator.add, self.forward or zeros, forward))
        self.backward = list(map(operator.add, self.backward or zeros, backward))


def _train_epoch(
    state: TrainState,
    task: Task[Any],
    settings: Train,
    total: int,
    deadline: float | None,
) -> Row:
    device = task.device
    state.model.train()
    if settings.reset_optimizer:
        state.optimizer.state.clear()
    sums = _Sums(torch.zeros((), device=device))
    take_evaluations(state.model)
    reset_peak_memory(device)
    synchronize(device)
    start = time.perf_counter()
    for batch in task.batches(state.epoch):
        if state.iteration >= total:
            break
        lr = _set_learning_rate(state, settings, task.batches_per_epoch, total)
        _step(state, task, batch, sums)
        state.iteration += 1
        if state.iteration % CHECK_EVERY[device.type] == 0:
            _require_finite(sums.loss, state)
        if deadline is not None and time.monotonic() > deadline:
            raise DeadlineExceeded(f"the trial's time was up after {state.iteration} iterations")
    synchronize(device)
    seconds = time.perf_counter() - start
    _require_finite(sums.loss, state)
    return {
        "lr": lr,
        "train_loss": sums.loss.item() / sums.samples,
        **{f"train_{name}": sum_.item() / sums.samples for name, sum_ in sums.measures.items()},
        **_evaluations(sums),
        **(state.hook.metrics() if state.hook else {}),
        "epoch_s": seconds,
        "peak_memory_bytes": peak_memory(device),
    }


def _step(state: TrainState, task: Task[Any], batch: object, sums: _Sums) -> None:
    loss = task.loss(state.model, batch)
    forward = take_evaluations(state.model)
    state.optimizer.zero_grad()
    loss.mean.backward()  # type: ignore[no-untyped-call]
    sums.count(forward, take_evaluations(state.model))
    if state.hook:
        state.hook.after_backward(state.model, task, batch, loss, sum(forward), state.iteration)
    state.optimizer.step()
    sums.add(loss)


def _evaluations(sums: _Sums) -> Row:
    """Evaluations per forward and per backward pass, in all and for each of several blocks."""
    row: Row = {}
    if not sums.forward:
        return row  # a network without ODE blocks
    for name, counts in (("nfe_forward", sums.forward), ("nfe_backward", sums.backward)):
        row[name] = sum(counts) / sums.batches
        if len(counts) > 1:
            row |= {f"{name}.{block}": n / sums.batches for block, n in enumerate(counts)}
    return row


def _require_finite(total: Tensor, state: TrainState) -> None:
    if not math.isfinite(total.item()):
        raise Diverged(
            f"the training loss became {total.item()} by iteration {state.iteration} "
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


def _set_learning_rate(state: TrainState, settings: Train, per_epoch: int, total: int) -> float:
    unit = 1 if settings.iterations else per_epoch
    factor = learning_rate_factor(settings.schedule, state.iteration, unit, total)
    for group in state.optimizer.param_groups:
        group["lr"] = settings.optimizer.lr * factor
    return settings.optimizer.lr * factor


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
