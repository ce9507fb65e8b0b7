"""Chains of image layers as one operation of autograd, compiled for the CPU.

On small images, most of the time of an evaluation is torch's overhead around each operation, not
arithmetic. A chain has this overhead once for all of its layers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from nodebench.models.chains.computation import Computation, Kept, computed
from nodebench.models.chains.operation import Fills, LayerGradients, Operation, Pulled, Rectifier


class Chain:
    """f(t, x) as a sequence of operations, each of which takes the previous one's output.

    Shapes: x [batch, channels, height, width], for which `are_compiled` holds.
    """

    def __init__(self, operations: Sequence[Operation]):
        self.operations = list(_fused(operations))
        self.weights = [weight for each in operations for weight in each.weights]

    def __call__(self, t: Any, x: Tensor) -> Tensor:
        """The output of the last operation."""
        (out,) = computed(_Evaluation(self, t), x)
        return out

    def output(self, t: float, x: Any, fills: Fills, kept: Kept | None, spares: list[Any]) -> Any:
        """The output of the last operation, which `fills` will fill.

        The arrays that the gradient needs are added to `kept`. If it is None, outputs are written
        over spare arrays, and every output but the last becomes a spare array after its use.
        """
        images = x
        for operation in self.operations:
            output = operation.output(images, t, spares.pop() if spares else None)
            fills.add(output.fill)
            if kept is not None:
                kept.append(output.kept)
            elif images is not x:
                spares.append(images)
            images = output.images
        return images

    def pull(
        self,
        t: float,
        by_out: Any,
        kept: Sequence[Sequence[Any]],
        needed: Sequence[bool],
        fills: Fills,
    ) -> tuple[Any, LayerGradients]:
        """The gradients of the input and of all weights; None where one is not needed.

        They are computed after the pending `fills`.
        """
        images, found = by_out, list[Pulled]()
        needed = list(needed)
        for operation, arrays in zip(reversed(self.operations), reversed(kept), strict=True):
            if not any(needed):
                break
            first = len(needed) - len(operation.weights)
            needed, of_weights = needed[:first], needed[first:]
            if operation.pulls_whole_batches:
                fills.run()
            found.append(operation.pull(images, arrays, t, (any(needed), *of_weights)))
            images = found[-1].images
            if found[-1].fill:
                fills.add(found[-1].fill)
        fills.run()
        _fill_weights(found)
        by_weights = [by_weight for each in reversed(found) for by_weight in each.by_weights()]
        of_earlier = [None] * (len(needed) - 1)
        return images if any(needed) else None, [*of_earlier, *by_weights]

    def by_torch(self, t: float, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """The output by torch operations, whose gradients can be differentiated."""
        for operation in self.operations:
            count = len(operation.weights)
            own, weights = weights[:count], weights[count:]
            x = operation.by_torch(x, t, *own)
            x = torch.relu(x) if operation.applies_relu else x
        return x


class _Evaluation(Computation):
    """The evaluation of a chain at time t."""

    def __init__(self, chain: Chain, t: float):
        self.chain, self.t = chain, t
        self.weights = chain.weights

    def outputs(self, x: Any, kept: Kept | None) -> list[Any]:
        """The chain's output, as the only one."""
        fills = Fills(len(x))
        out = self.chain.output(self.t, x, fills, kept, [])
        fills.run()
        return [out]

    def pull(
        self, by_outputs: Sequence[Any], kept: Kept, needed: Sequence[bool]
    ) -> tuple[Any, LayerGradients]:
        """The gradients of the images and of all weights."""
        (by_out,) = by_outputs
        return self.chain.pull(self.t, by_out, kept, needed, Fills(len(by_out)))

    def by_torch(self, x: Tensor, weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """The chain's output by torch."""
        return [self.chain.by_torch(self.t, x, weights)]


def _fused(operations: Sequence[Operation]) -> Iterator[Operation]:
    """The operations without the ReLUs between two others.

    The operation before a ReLU applies it, and the operation after it applies its gradient.
    """
    operations = [copy.copy(operation) for operation in operations]
    for i, operation in enumerate(operations):
        if isinstance(operation, Rectifier) and 0 < i < len(operations) - 1:
            operations[i - 1].applies_relu = operations[i + 1].follows_relu = True
        else:
            yield operation


def _fill_weights(pulled: Sequence[Pulled]) -> None:
    """Fills the gradients of weights; those with the same number of parts are filled together."""
    fills: dict[int, Fills] = {}
    for each in pulled:
        if each.fill_weights:
            fills.setdefault(each.parts, Fills(each.parts)).add(each.fill_weights)
    for of_parts in fills.values():
        of_parts.run()
