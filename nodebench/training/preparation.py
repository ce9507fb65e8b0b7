"""A trial's parts before the first step: data, task and network, on their device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nodebench.data.load import load_data
from nodebench.models.build import build
from nodebench.models.device import to_device
from nodebench.ode.block import ode_blocks, share_memory
from nodebench.planning import RunOptions
from nodebench.spec import TrialSpec
from nodebench.spec.own_code import known_alone
from nodebench.spec.seed import stream
from nodebench.training.adaptation import adaptation_for
from nodebench.training.checkpoint import TrainState
from nodebench.training.loop import new_state
from nodebench.training.machine import (
    keep_freed_memory,
    memory_of_trial,
    return_freed_memory,
    select_device,
    set_precision,
)
from nodebench.training.task import Task
from nodebench.training.tasks.table import task_for


@dataclass(frozen=True)
class Prepared:
    """The parts built from a spec and its seed: training, probing and timing all start with them.

    The trial is one of `packed` trials that share the device.
    """

    spec: TrialSpec
    options: RunOptions
    device: torch.device
    data: Any
    task: Task[Any]
    model: nn.Module
    packed: int = 1

    def new_state(self) -> TrainState:
        """The state before the first iteration, with the solver's adaptation if there is one."""
        return new_state(self.model, self.spec, adaptation_for(self.model, self.task, self.spec))

    def untrained(self) -> nn.Module:
        """The network, built again with its initial weights."""
        return _network(self.spec, self.data, self.device)

    def deadline(self, start: float) -> float | None:
        """The deadline of work that starts at `start`, in monotonic time; None if unlimited."""
        minutes = self.options.limits.minutes
        # The trials of a pack share the time.
        return None if minutes is None else start + 60 * minutes * self.packed

    def limit_solves(self, model: nn.Module, deadline: float | None) -> None:
        """Limits a model's solves to the trial's memory share, its evaluations and a deadline."""
        self.limit_memory(model)
        for block in ode_blocks(model):
            block.max_evaluations = self.options.limits.nfe
            block.deadline = deadline

    def limit_memory(self, model: nn.Module) -> None:
        """Limits a model's solves to the trial's share of its device's memory."""
        share_memory(model, memory_of_trial(self.options.resources.gpu_share) // self.packed)


def prepare_trial(
    spec: TrialSpec, options: RunOptions, *, packed: int = 1, data: Any = None
) -> Prepared:
    """Loads the data, unless it is given, builds the network, and seeds torch for training.

    Raises:
        DataError: if the data set is missing or damaged.
        InputError: if the user's own code cannot be used.
    """
    torch.set_num_threads(options.resources.cpus)
    set_precision(spec.train.precision)
    _reuse_memory(spec)
    device = select_device(options.resources.gpu_share)
    with known_alone(spec.import_paths):
        if data is None:
            data = load_data(spec, options.data_root).to(device)
        model, task = _network(spec, data, device), task_for(data, spec)
    torch.manual_seed(stream(spec.seed, "training"))
    return Prepared(spec, options, device, data, task, model, packed)


def _reuse_memory(spec: TrialSpec) -> None:
    """Keeps freed memory for the next step, unless a graph may be built in many segments."""
    if spec.gradient is not None and spec.gradient.name in ("recompute", "exact"):
        return_freed_memory()
    else:
        keep_freed_memory()


def _network(spec: TrialSpec, data: Any, device: torch.device) -> nn.Module:
    return to_device(build(spec, data), device, spec.train.precision)
