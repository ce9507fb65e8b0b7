"""Optimizers and learning rates, without torch's compiler."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable

import torch
from torch import nn

from nodebench.spec.training import Cosine, Milestones, Optimizer, Schedule, Train
from nodebench.training.checkpoint import TrainState


def step_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """`optimizer.step()`, hooks aside."""
    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)


# Adam's operations on many small parameters take a fourth longer one by one.
OPTIMIZER_CLASSES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": functools.partial(torch.optim.Adam, foreach=True),
    "adamw": functools.partial(torch.optim.AdamW, foreach=True),
    "rmsprop": torch.optim.RMSprop,
}


def make_optimizer(model: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """The optimizer of these settings, over a model's parameters."""
    _leave_out_compiler()
    return OPTIMIZER_CLASSES[settings.name](
        model.parameters(), **settings.model_dump(exclude={"name"})
    )


@functools.cache
def _leave_out_compiler() -> None:
    """Keeps torch's optimizers from importing its compiler at their first call.

    They do so only to be left out of what it compiles, which is nothing here: seconds of each
    process, as many as all the rest of torch takes.
    """
    for method in vars(torch.optim.Optimizer).values():
        inner = getattr(method, "__wrapped__", None)
        if inner is not None:
            inner.__dynamo_disable = inner  # where torch keeps what it would import


def set_learning_rate(state: TrainState, settings: Train, per_epoch: int, total: int) -> None:
    """Sets the learning rate of a training's next iteration."""
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
