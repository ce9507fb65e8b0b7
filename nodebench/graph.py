"""Training steps on a GPU as CUDA graphs.

A step of a fixed-step network is thousands of small kernels, always the same ones: recorded once,
they are launched as one, instead of one by one from Python.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from nodebench.ode.block import by_backprop, ode_blocks, take_evaluations
from nodebench.ode.gradients import buffers_kept
from nodebench.train import Step

WARM_STEPS = 3
"""Steps before the recording, in which libraries choose their kernels and memory is allocated."""

TOLERANCE = 1e-3
"""Relative; by more, a recorded gradient is not the one that was recorded."""


def taker_on(device: torch.device) -> Graphed | None:
    """What takes a network's steps in the stead of its training, where that is faster."""
    return Graphed() if device.type == "cuda" else None


class Graphed:
    """Takes the steps of one network, once a few are taken, from a recording of their kernels.

    The optimizer's part stays outside: it changes with the schedule, and is a few kernels.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._graph: _Graph | None = None
        self._works = True

    def take(self, steps: Sequence[Step]) -> None:
        """Takes the step if it is like the recorded one, and leaves it to its training if not."""
        [step] = steps
        if not (self._works and _is_always_the_same(step)):
            return
        self._seen += 1
        try:
            if self._graph is None and self._seen > WARM_STEPS:
                self._graph = _Graph(step)
            if self._graph is not None and self._graph.fits(step):
                self._graph.take(step)
        except RuntimeError as error:
            self._works = False
            warnings.warn(f"steps are not taken as a CUDA graph: {error}", stacklevel=1)


def _is_always_the_same(step: Step) -> bool:
    """Whether every step of the training is the same kernels, on other numbers."""
    model, batch = step.state.model, step.batch
    is_fixed = all(block.solver.facts.kind == "fixed" for block in ode_blocks(model))
    on_device = isinstance(batch, tuple) and all(part.is_cuda for part in batch)
    return is_fixed and on_device and step.state.hook is None and by_backprop(model)


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
            take_evaluations(model)
            with torch.cuda.graph(self._graph):
                self._loss = like.task.loss(model, self._inputs)
                self._forward = take_evaluations(model)
                self._loss.mean.backward()  # type: ignore[no-untyped-call]
            self._backward = take_evaluations(model)
            self._recorded = [parameter.grad for parameter in self._parameters]
            self._graph.replay()
            _require_alike(self._recorded, expected)

    def _gradients(self, step: Step) -> tuple[Tensor | None, ...]:
        loss = step.task.loss(step.state.model, self._inputs).mean
        return torch.autograd.grad(loss, self._parameters, allow_unused=True)

    def fits(self, step: Step) -> bool:
        """Whether a step's batch has the recorded shape."""
        pairs = itertools.zip_longest(step.batch, self._inputs)
        return all(given.shape == recorded.shape for given, recorded in pairs)

    def take(self, step: Step) -> None:
        """`train.step`."""
        for recorded, given in zip(self._inputs, step.batch, strict=True):
            recorded.copy_(given)
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._recorded, strict=True):
            parameter.grad = gradient
        step.finish(self._loss, self._forward, self._backward)


def _require_alike(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> None:
    """Refuses a recording that does not do what was recorded: once a trial, and cheap."""
    for one, other in zip(found, expected, strict=True):
        if one is None or other is None:
            is_alike = one is other
        else:
            is_alike = bool((one - other).norm() <= TOLERANCE * other.norm())
        if not is_alike:
            raise RuntimeError("the recorded gradient is not the one that was recorded")
