"""Trials that differ in their seed alone, trained together: their steps are taken as one.

Each stays a trial: its own store entry, checkpoint, history and outcome. Where the steps that they
are about to take do not fit together, as at the end of an epoch for one that had been interrupted
elsewhere, each takes its own.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from nodebench.errors import StoreError
from nodebench.graph import graph_of
from nodebench.identity import Trial
from nodebench.machine import keep_freed_memory
from nodebench.ode.block import by_backprop, take_evaluations
from nodebench.planning import RunOptions
from nodebench.store import Store
from nodebench.task import Loss, Task
from nodebench.train import Step, Taker, taken_by
from nodebench.trial import attempt
from nodebench.trial_folder import Row


class Pack:
    """Some trials, and `problems`: what kept any of them from being run, by its id."""

    def __init__(self, trials: Sequence[Trial], store: Store, options: RunOptions):
        self.trials, self._store = trials, store
        self._options = replace(options, packed=len(trials))
        self._taker: Taker | None = Together() if len(trials) > 1 else graph_of(trials[0], options)
        self.problems: dict[str, str] = {}

    def epochs(self) -> Generator[dict[str, Row], None, None]:
        """Trains and evaluates them; yields, by id, the rows of trials that end an epoch together.

        Closed before its end, it leaves trials that go on from their last checkpoints.
        """
        upcoming: dict[str, Step] = {}
        with ExitStack() as ends:
            attempts = {}
            for trial in self.trials:
                attempts[trial.id] = attempt(trial, self._store, self._options)
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
                elif len(upcoming) == len(attempts):
                    self._take(upcoming)
                    upcoming.clear()

    def _take(self, upcoming: Mapping[str, Step]) -> None:
        """Takes the steps that can be taken faster than one by one, each by its training."""
        if self._taker and (problem := taken_by(self._taker, list(upcoming.values()))):
            self._taker = None
            for trial_id in upcoming:
                self._store.folder(trial_id).log(f"steps are taken one by one: {problem}")

    def _next(self, trial_id: str, running: Iterator[Step | Row]) -> Step | Row | None:
        try:
            return next(running, None)
        except StoreError as error:  # another launch trains it; the others go on
            self.problems[trial_id] = str(error)
            return None

    @property
    def has_results(self) -> bool:
        """Whether every trial has one; its failure is one too."""
        results = (self._store.folder(trial.id).result() for trial in self.trials)
        return all(result is not None and result.is_result for result in results)


class Together:
    """Takes steps of networks that differ in their numbers alone."""

    def __init__(self) -> None:
        keep_freed_memory()
        self._stack: _Stack | None = None

    def take(self, steps: Sequence[Step]) -> None:
        """Takes those that fit together, and leaves the others to their trainings."""
        for alike in _alike(steps):
            models = [step.state.model for step in alike]
            if self._stack is None or self._stack.models != models:
                self._stack = _Stack(models)
            self._stack.take(alike)


def _alike(steps: Iterable[Step]) -> list[list[Step]]:
    """Steps that can be taken together: of batches of one shape, by backprop."""
    found: dict[object, list[Step]] = {}
    for step in steps:
        if by_backprop(step.state.model):
            found.setdefault(tuple(part.shape for part in step.batch), []).append(step)
    return [alike for alike in found.values() if len(alike) > 1]


class _Stack:
    """The parameters and buffers of several networks, seeds first, of which theirs are views."""

    def __init__(self, models: Sequence[nn.Module]):
        self.models = list(models)
        self._parameters = _stacked([dict(model.named_parameters()) for model in models])
        self._buffers = _stacked([dict(model.named_buffers()) for model in models])
        for tensor in self._parameters.values():
            tensor.requires_grad_()

    def take(self, steps: Sequence[Step]) -> None:
        """`train.step` of each: one forward and one backward pass, then each one's optimizer."""
        network, loss_of = self.models[0], _LossOf(steps[0].task, self.models[0])
        batch = tuple(torch.stack(parts) for parts in zip(*(s.batch for s in steps), strict=True))
        buffers = {name: tensor.clone() for name, tensor in self._buffers.items()}
        means, sums = vmap(loss_of)(self._parameters, buffers, batch)
        forward = take_evaluations(network)
        parameters = list(self._parameters.values())
        gradients = torch.autograd.grad(means.sum(), parameters, allow_unused=True)
        backward = take_evaluations(network)
        for name, tensor in self._buffers.items():
            tensor.copy_(buffers[name])
        for seed, (step, model) in enumerate(zip(steps, self.models, strict=True)):
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = None if gradient is None else gradient[seed]
            measures = {name: values[seed] for name, values in sums.items()}
            step.finish(Loss(means[seed], loss_of.samples, measures), forward, backward)


class _LossOf:
    """A batch's loss and sums, as a function of a network's parameters and buffers."""

    def __init__(self, task: Task[Any], network: nn.Module):
        self._task, self._network = task, network
        self.samples = 0

    def __call__(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        def call(*inputs: Any) -> Any:
            return functional_call(self._network, (parameters, buffers), inputs)

        loss = self._task.loss(call, batch)
        self.samples = loss.samples
        return loss.mean, loss.sums


def _stacked(each: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors by name, joined along a first dimension, each laid out as before; theirs are views.

    Shapes: n times [...] -> [n, ...].
    """
    joined = {}
    for name, like in each[0].items():
        size, strides = (len(each), *like.shape), (like.numel(), *like.stride())
        whole = torch.empty_strided(size, strides, dtype=like.dtype, device=like.device)
        for row, own in zip(whole, each, strict=True):
            own[name].data = row.copy_(own[name].detach())
        joined[name] = whole
    return joined
