"""Layers of images as one operation of autograd, compiled for the CPU.

On small images most of the time of an evaluation is what torch does around each operation, and not
arithmetic: a chain does it once for all of its layers.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from nodebench.models.layers.images import to_array, to_images

LayerGradients = Sequence[Tensor | None]


class Operation(ABC):
    """What a layer does to images, which are arrays [batch, height, width, channels]."""

    weights: Sequence[Tensor] = ()
    """The tensors that get gradients."""

    applies_relu = False
    """Whether its output goes through a ReLU, which it applies itself."""

    follows_relu = False
    """Whether its input comes from a ReLU, whose gradient it takes itself."""

    @property
    def least(self) -> float:
        """The lower bound of the output."""
        return 0.0 if self.applies_relu else -math.inf

    @abstractmethod
    def output(self, x: Any, t: float, /) -> tuple[Any, tuple[Any, ...]]:
        """The output at time t, and the arrays that the gradient needs."""

    @abstractmethod
    def pull(
        self, by_out: Any, kept: Sequence[Any], t: float, needed: Sequence[bool], /
    ) -> tuple[Any, LayerGradients]:
        """The gradients of the input, and of the weights; None where it is not needed."""

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
        images = to_array(x)
        for operation in self.operations:
            images, _ = operation.output(images, t)
        return to_images(images)

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
        images, counts, arrays = to_array(x), list[int](), list[Any]()
        for operation in chain.operations:
            images, kept = operation.output(images, t)
            arrays += kept
            counts.append(len(kept))
        out = to_images(images)
        saved = (
            out.detach().permute(0, 2, 3, 1) if a is images else torch.from_numpy(a) for a in arrays
        )
        ctx.chain, ctx.t, ctx.counts = chain, t, counts
        # With the weights, and the output itself: torch tells if they change before the gradient.
        ctx.save_for_backward(x, *chain.weights, *saved)
        return out

    @staticmethod
    def backward(ctx: Any, by_out: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        saved = saved[len(ctx.chain.weights) :]
        if torch.is_grad_enabled():  # the gradient is going to be differentiated itself
            return None, None, *ctx.chain.gradients_by_torch(x, ctx.t, by_out)
        needed = list(ctx.needs_input_grad[2:])
        images, found = to_array(by_out), list[Tensor | None]()
        for operation, count in zip(
            reversed(ctx.chain.operations), reversed(ctx.counts), strict=True
        ):
            if not any(needed):
                break
            saved, kept = saved[: len(saved) - count], saved[len(saved) - count :]
            first = len(needed) - len(operation.weights)
            needed, of_weights = needed[:first], needed[first:]
            arrays = [tensor.numpy() for tensor in kept]
            images, by_weights = operation.pull(images, arrays, ctx.t, (any(needed), *of_weights))
            found = [*by_weights, *found]
        earlier = [to_images(images)] if any(needed) else [None] * len(needed)
        return None, None, *earlier, *found


class Rectifier(Operation):
    """max(0, x), where it is the first or the last of a chain."""

    def output(self, x: Any, _t: float) -> tuple[Any, tuple[Any, ...]]:
        """The output, which is kept."""
        out = torch.relu(torch.from_numpy(x)).numpy()
        return out, (out,)

    def pull(
        self, by_out: Any, kept: Sequence[Any], _t: float, _needed: Sequence[bool]
    ) -> tuple[Any, LayerGradients]:
        """The gradient of the input."""
        return pull_rectified(by_out, *kept), ()

    def by_torch(self, x: Tensor, _t: float, *_weights: Tensor) -> Tensor:
        """The output by torch."""
        return torch.relu(x)


def pull_rectified(by_out: Any, out: Any) -> Any:
    """The gradient of what was rectified."""
    tensors = map(torch.from_numpy, (by_out, out))
    return torch.ops.aten.threshold_backward(*tensors, 0).numpy()
