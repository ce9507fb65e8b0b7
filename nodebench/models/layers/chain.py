"""Layers of images as one operation of autograd, compiled for the CPU.

On small images most of the time of an evaluation is what torch does around each operation, and not
arithmetic: a chain does it once for all of its layers. Each thread takes some samples through all
layers, so that threads wait for each other once.
"""

from __future__ import annotations

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from nodebench.models.layers.images import array_for, to_array, to_images
from nodebench.ode.tile_size import TILE_ROWS

SAMPLES = TILE_ROWS
"""The samples that a compiled convolution takes at once."""

LayerGradients = Sequence[Tensor | None]
Fill: TypeAlias = Callable[[tuple[int, int]], None]
"""Fills an array for the samples from the first number up to the second."""


class Output(NamedTuple):
    """An operation's output, what fills it, and the arrays kept for the gradient."""

    images: Any
    fill: Fill
    kept: tuple[Any, ...]


class Pulled(NamedTuple):
    """The gradient of an operation's input, what fills it, and the weights' gradients.

    `fill` is None if `images` is filled already or not needed. `by_weights` is called after all
    arrays have been filled.
    """

    images: Any
    fill: Fill | None
    by_weights: Callable[[], LayerGradients]


class Operation(ABC):
    """What a layer does to images, which are arrays [batch, height, width, channels].

    Each sample is processed independently. `output` and `pull` only allocate: the arrays that they
    are given may still be empty, and are filled by the time that `fill` is called.
    """

    weights: Sequence[Tensor] = ()
    """The tensors that get gradients."""

    applies_relu = False
    """Whether its output goes through a ReLU, which it applies itself."""

    follows_relu = False
    """Whether its input comes from a ReLU, whose gradient it takes itself."""

    pulls_whole_batches = False
    """Whether `pull` computes at once, so that the gradient it is given must already be filled."""

    @property
    def least(self) -> float:
        """The lower bound of the output."""
        return 0.0 if self.applies_relu else -math.inf

    @abstractmethod
    def output(self, x: Any, t: float, spare: Any = None, /) -> Output:
        """The output at time t, written over a spare array if that has its shape."""

    @abstractmethod
    def pull(self, by_out: Any, kept: Sequence[Any], t: float, needed: Sequence[bool], /) -> Pulled:
        """The gradients of the input, and of the weights; None where one is not needed."""

    @abstractmethod
    def by_torch(self, x: Tensor, t: float, /, *weights: Tensor) -> Tensor:
        """The output before the ReLU, by operations of torch, whose gradients have gradients."""


class Chain:
    """f(t, x) of operations, each of which takes the output of the one before.

    Shapes: x [batch, channels, height, width], for which `are_compiled` holds.
    """

    def __init__(self, operations: Sequence[Operation]):
        self.operations = list(_fused(operations))
        self.weights = [weight for each in operations for weight in each.weights]

    def __call__(self, t: Any, x: Tensor) -> Tensor:
        """The last one's output."""
        if torch.is_grad_enabled():
            out: Tensor = _Chained.apply(self, t, x, *self.weights)
            return out
        return to_images(self.outputs(t, x, reuse=True)[-1].images)

    def outputs(self, t: float, x: Tensor, *, reuse: bool = False) -> list[Output]:
        """Those of all operations; with `reuse`, all in the memory of two, and the last is left."""
        images, spare, found = to_array(x), None, list[Output]()
        for operation in self.operations:
            output = operation.output(images, t, spare)
            spare = images if reuse and found else None  # the first images are x
            images = output.images
            found.append(output)
        _fill([each.fill for each in found], len(images))
        return found

    def gradients(
        self, t: float, by_out: Tensor, kept: Sequence[Sequence[Any]], needed: Sequence[bool]
    ) -> LayerGradients:
        """Those of the input and of all weights; None where one is not needed."""
        images, fills, by_weights = to_array(by_out), list[Fill](), list[Callable[[], Any]]()
        needed = list(needed)
        for operation, arrays in zip(reversed(self.operations), reversed(kept), strict=True):
            if not any(needed):
                break
            first = len(needed) - len(operation.weights)
            needed, of_weights = needed[:first], needed[first:]
            if operation.pulls_whole_batches:
                _fill(fills, len(images))
                fills = list[Fill]()
            pulled = operation.pull(images, arrays, t, (any(needed), *of_weights))
            images = pulled.images
            fills += [pulled.fill] if pulled.fill else []
            by_weights.append(pulled.by_weights)
        _fill(fills, len(by_out))
        earlier = [to_images(images)] if any(needed) else [None] * len(needed)
        return [*earlier, *(each for found in reversed(by_weights) for each in found())]

    def gradients_by_torch(self, x: Tensor, t: float, by_out: Tensor) -> LayerGradients:
        """Those of the input and of all weights, which can be differentiated themselves."""
        # Other names for the same: the input may itself depend on the weights, at an earlier step.
        inputs = [v.view_as(v) if v.requires_grad else v for v in (x, *self.weights)]
        out, *weights = inputs
        for operation in self.operations:
            count = len(operation.weights)
            own, weights = weights[:count], weights[count:]
            out = operation.by_torch(out, t, *own)
            out = torch.relu(out) if operation.applies_relu else out
        needed = [tensor for tensor in inputs if tensor.requires_grad]
        found = iter(torch.autograd.grad(out, needed, by_out, create_graph=True))
        return [next(found) if tensor.requires_grad else None for tensor in inputs]


def _fused(operations: Sequence[Operation]) -> Iterator[Operation]:
    """The operations but for the ReLUs between two others.

    The one before applies the ReLU, and the one after takes its gradient.
    """
    operations = [copy.copy(operation) for operation in operations]
    for i, operation in enumerate(operations):
        if isinstance(operation, Rectifier) and 0 < i < len(operations) - 1:
            operations[i - 1].applies_relu = operations[i + 1].follows_relu = True
        else:
            yield operation


class _Chained(torch.autograd.Function):
    """(chain, t, x, the chain's weights) -> the output."""

    @staticmethod
    def forward(ctx: Any, chain: Chain, t: float, x: Tensor, *_weights: Tensor) -> Tensor:
        outputs = chain.outputs(t, x)
        images = outputs[-1].images
        out = to_images(images)
        saved = (
            out.detach().permute(0, 2, 3, 1) if array is images else torch.from_numpy(array)
            for each in outputs for array in each.kept
        )  # fmt: skip
        ctx.chain, ctx.t, ctx.counts = chain, t, [len(each.kept) for each in outputs]
        # With the weights, and the output itself: torch tells if they change before the gradient.
        ctx.save_for_backward(x, *chain.weights, *saved)
        return out

    @staticmethod
    def backward(ctx: Any, by_out: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is going to be differentiated itself
            return None, None, *ctx.chain.gradients_by_torch(x, ctx.t, by_out)
        arrays = iter([tensor.numpy() for tensor in saved[len(ctx.chain.weights) :]])
        kept = [list(itertools.islice(arrays, count)) for count in ctx.counts]
        needed = ctx.needs_input_grad[2:]
        return None, None, *ctx.chain.gradients(ctx.t, by_out, kept, needed)


def _fill(fills: Sequence[Fill], samples: int) -> None:
    """Fills arrays one after the other for each of the samples, in as many threads as torch may."""
    from nodebench.ode.compiled import in_threads  # numba takes a second

    if fills:
        in_threads(_take_through, samples, fills, together=SAMPLES)


def _take_through(samples: tuple[int, int], fills: Sequence[Fill]) -> None:
    for fill in fills:
        fill(samples)


class Rectifier(Operation):
    """max(0, x), where it is the first or the last of a chain."""

    def output(self, x: Any, _t: float, spare: Any = None) -> Output:
        """The output, which is kept."""
        out = array_for(x.shape, x, spare)

        def fill(samples: tuple[int, int]) -> None:
            own = slice(*samples)
            np.maximum(x[own], 0, out=out[own])

        return Output(out, fill, (out,))

    def pull(self, by_out: Any, kept: Sequence[Any], _t: float, _needed: Sequence[bool]) -> Pulled:
        """The gradient of the input."""
        (out,), by_x = kept, array_for(by_out.shape, by_out)

        def fill(samples: tuple[int, int]) -> None:
            own = slice(*samples)
            np.copyto(by_x[own], by_out[own])
            by_x[own][out[own] <= 0] = 0

        return Pulled(by_x, fill, tuple)

    def by_torch(self, x: Tensor, _t: float, *_weights: Tensor) -> Tensor:
        """The output by torch."""
        return torch.relu(x)


def pull_rectified(by_out: Any, out: Any) -> Any:
    """The gradient of what was rectified."""
    tensors = map(torch.from_numpy, (by_out, out))
    return torch.ops.aten.threshold_backward(*tensors, 0).numpy()
