"""Steps of networks that differ only in the values of their tensors, taken as one by `vmap`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from nodebench.ode.block import by_backprop, one_pass
from nodebench.training.steps.step import Step
from nodebench.training.task import Loss, Task


class VmappedSteps:
    """Takes steps of networks that differ only in the values of their tensors."""

    def __init__(self) -> None:
        self._stack: _Stack | None = None

    def take(self, steps: Sequence[Step]) -> None:
        """Takes the steps that fit together, and leaves the others to their trainings."""
        for alike in _alike(steps):
            models = [step.state.model for step in alike]
            if self._stack is None or self._stack.models != models:
                self._stack = _Stack(models)
            self._stack.take(alike)


def _alike(steps: Iterable[Step]) -> list[list[Step]]:
    """Groups of steps that can be taken together: by backprop, with batches of equal shape."""
    found: dict[object, list[Step]] = {}
    for step in steps:
        if by_backprop(step.state.model):
            found.setdefault(tuple(part.shape for part in step.batch), []).append(step)
    return [alike for alike in found.values() if len(alike) > 1]


class _Stack:
    """Stacked parameters and buffers of several networks, seeds first; their own become views."""

    def __init__(self, models: Sequence[nn.Module]):
        self.models = list(models)
        self._parameters = _stacked([dict(model.named_parameters()) for model in models])
        self._buffers = _stacked([dict(model.named_buffers()) for model in models])
        for tensor in self._parameters.values():
            tensor.requires_grad_()

    def take(self, steps: Sequence[Step]) -> None:
        """Takes all steps: one forward and one backward pass, then each network's optimiser."""
        network, loss_of = self.models[0], _LossOf(steps[0].task, self.models[0])
        batch = tuple(torch.stack(parts) for parts in zip(*(s.batch for s in steps), strict=True))
        buffers = {name: tensor.clone() for name, tensor in self._buffers.items()}
        with one_pass(network) as forward:
            means, sums = vmap(loss_of)(self._parameters, buffers, batch)
        parameters = list(self._parameters.values())
        with one_pass(network) as backward:
            gradients = torch.autograd.grad(means.sum(), parameters, allow_unused=True)
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
    """Stacks tensors by name along a new first dimension; the originals become views of the stack.

    Their memory layout is kept. Shapes: n times [...] -> [n, ...].
    """
    joined = {}
    for name, like in each[0].items():
        size, strides = (len(each), *like.shape), (like.numel(), *like.stride())
        whole = torch.empty_strided(size, strides, dtype=like.dtype, device=like.device)
        for row, own in zip(whole, each, strict=True):
            own[name].data = row.copy_(own[name].detach())
        joined[name] = whole
    return joined
