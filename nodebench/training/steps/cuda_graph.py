"""Training steps on a GPU as CUDA graphs.

A training step of a network with a fixed-step solver runs thousands of small kernels, always the
same ones. Recorded once, they are launched as one, instead of one by one from Python.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nodebench.ode.block import by_backprop, one_pass
from nodebench.ode.buffers import buffers_kept
from nodebench.planning import RunOptions
from nodebench.planning.seed_packs import has_equal_steps
from nodebench.spec import Trial
from nodebench.training.machine import peak_memory
from nodebench.training.steps.step import Step
from nodebench.training.task import Loss

WARM_STEPS = 3
"""Steps before the recording, in which libraries choose their kernels and memory is allocated."""

SAME_GRADIENT = 1e-3
"""The largest relative distance at which a replayed gradient counts as the recorded one."""


def graph_of(trial: Trial, options: RunOptions) -> CudaGraphSteps | None:
    """A taker of a trial's steps on a GPU; None without a GPU, or if the steps' kernels vary."""
    if not options.resources.gpu_share or not has_equal_steps(trial.spec):
        return None
    return CudaGraphSteps()


class CudaGraphSteps:
    """Takes the steps of one network, after a few warm-up steps, by replaying their kernels.

    The optimiser's update is not recorded: it changes with the schedule, and has few kernels.
    Batches of another shape than the first, such as the last of an epoch, are not replayed.
    """

    def __init__(self) -> None:
        self._shape: object = None
        self._seen = 0
        self._graph: _Graph | None = None

    def take(self, steps: Sequence[Step]) -> None:
        """Takes the step if it is like the recorded one; otherwise leaves it to its training."""
        [step] = steps
        shape = [part.shape for part in step.batch]
        self._shape = self._shape or shape
        if shape != self._shape or not by_backprop(step.state.model):
            return
        self._seen += 1
        if self._graph is None and self._seen > WARM_STEPS:
            self._graph = _Graph(step)
        if self._graph:
            self._graph.take(step)


class _Graph:
    """The recorded forward and backward pass of a step."""

    def __init__(self, like: Step):
        self._inputs = tuple(part.clone() for part in like.batch)
        model = like.state.model
        self._parameters = list(model.parameters())
        self._graph = torch.cuda.CUDAGraph()
        with buffers_kept(model):
            expected = self._gradients(like)
            for parameter in self._parameters:
                parameter.grad = None  # so that a replay writes gradients instead of adding
            with torch.cuda.graph(self._graph):
                with one_pass(model) as self._forward:
                    loss = like.task.loss(model, self._inputs)
                with one_pass(model) as self._backward:
                    loss.mean.backward()
            self._loss = Loss(loss.mean.detach(), loss.samples, loss.sums)
            self._peak = peak_memory(loss.mean.device)
            self._recorded = [parameter.grad for parameter in self._parameters]
            self._graph.replay()
            _require_alike(self._recorded, expected)

    def _gradients(self, step: Step) -> tuple[Tensor | None, ...]:
        with one_pass(step.state.model):
            loss = step.task.loss(step.state.model, self._inputs).mean
        with one_pass(step.state.model):
            return torch.autograd.grad(loss, self._parameters, allow_unused=True)

    def take(self, step: Step) -> None:
        """Takes the step, like `Step.take`."""
        for recorded, given in zip(self._inputs, step.batch, strict=True):
            recorded.copy_(given)
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._recorded, strict=True):
            parameter.grad = gradient
        step.finish(self._loss, self._forward, self._backward)
        sums = step.state.sums
        sums.peak_memory = max(sums.peak_memory, self._peak)  # replays allocate nothing


def _require_alike(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> None:
    """Rejects a recording with an unexpected gradient; cheap, as it runs once per trial."""
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if a is not None or b is not None]
    if any(a is None or b is None for a, b in pairs):
        raise RuntimeError("the recording has gradients for different parameters")
    one, other = (torch.cat([x.flatten() for x in side]) for side in zip(*pairs, strict=True))
    error = ((one - other).norm() / other.norm()).item()
    if not error <= SAME_GRADIENT:
        raise RuntimeError(f"the recorded gradient is off by {error:.1e}")
