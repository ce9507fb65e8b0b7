"""Trials that differ in their seed alone, trained together: their steps are taken as one.

Each stays a trial: its own store entry, checkpoint, history and outcome. Where the steps that they
are about to take do not fit together, as at the end of an epoch for one that had been interrupted
elsewhere, each takes its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from nodebench.errors import StoreError, TrialFailure
from nodebench.graph import Graphed, taker_on
from nodebench.identity import Trial
from nodebench.machine import device_for, keep_freed_memory
from nodebench.ode.block import by_backprop, take_evaluations
from nodebench.plan import RunOptions
from nodebench.store import Store
from nodebench.task import Loss, Task
from nodebench.train import Step
from nodebench.trial import attempt
from nodebench.trial_folder import Row


class Pack:
    """Some trials, and `problems`: what kept any of them from being run, by its id."""

    def __init__(self, trials: Sequence[Trial], store: Store, options: RunOptions):
        self.trials, self._store = trials, store
        self._options = replace(options, packed=len(trials))
        self.problems: dict[str, str] = {}

    def epochs(self) -> Generator[dict[str, Row], None, None]:
        """Trains and evaluates them; yields, by id, the rows of trials that end an epoch together.

        Closed before its end, it leaves trials that go on from their last checkpoints.
        """
        attempts = {t.id: attempt(t, self._store, self._options) for t in self.trials}
        taker = _taker(self._options)
        upcoming: dict[str, Step] = {}
        try:
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
                    if taker:
                        taker.take(list(upcoming.values()))
                    upcoming.clear()
        finally:
            for left in attempts.values():
                left.close()

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


def _taker(options: RunOptions) -> Together | Graphed | None:
    """What takes steps in the stead of their trainings, where that is faster."""
    return Together() if options.packed > 1 else taker_on(device_for(options.resources.gpu_share))


class Together:
    """Takes steps of networks that differ in their numbers alone."""

    def __init__(self) -> None:
        keep_freed_memory()
        self._stack: _Stack | None = None
        self._works = True

    def take(self, steps: Sequence[Step]) -> None:
        """Takes those that fit together, and leaves the others to their trainings."""
        for alike in _alike(steps) if self._works else ():
            models = [step.state.model for step in alike]
            if self._stack is None or self._stack.models != models:
                self._stack = _Stack(models)
            try:
                self._stack.take(alike)
            except TrialFailure:
                take_evaluations(models[0])  # each meets it, or does not, on its own
            except RuntimeError as error:  # out of memory, or more than `vmap` can do
                self._works = False
                warnings.warn(f"seeds are trained one by one: {error}", stacklevel=1)


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
