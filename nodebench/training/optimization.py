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
    """`optimizer.step()` without its hooks."""
    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)


# On many small parameters, Adam takes a quarter longer if it updates them one by one.
OPTIMIZER_CLASSES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": functools.partial(torch.optim.Adam, foreach=True),
    "adamw": functools.partial(torch.optim.AdamW, foreach=True),
    "rmsprop": torch.optim.RMSprop,
}


def make_optimizer(model: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """The optimiser with these settings, over a model's parameters."""
    _leave_out_compiler()
    return OPTIMIZER_CLASSES[settings.name](
        model.parameters(), **settings.model_dump(exclude={"name"})
    )


@functools.cache
def _leave_out_compiler() -> None:
    """Keeps torch's optimizers from importing its compiler at their first call.

    They import it only to exclude themselves from compilation, and nothing is compiled here. The
    import takes seconds in each process, as many as the rest of torch.
    """
    for method in vars(torch.optim.Optimizer).values():
        inner = getattr(method, "__wrapped__", None)
        if inner is not None:
            inner.__dynamo_disable = inner  # where torch caches its result


def set_learning_rate(state: TrainState, settings: Train, per_epoch: int, total: int) -> None:
    """Sets the learning rate of a training's next iteration."""
    unit = 1 if settings.iterations else per_epoch
    factor = learning_rate_factor(settings.schedule, state.iteration, unit, total)
    for group in state.optimizer.param_groups:
        group["lr"] = settings.optimizer.lr * factor


def learning_rate_factor(schedule: Schedule, iteration: int, unit: int, total: int) -> float:
    """The factor of the learning rate at an iteration, counted from 0.

    `unit` is the number of iterations per unit of the schedule.
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
