"""Computations on arrays of images, as one operation of autograd."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nodebench.models.chains.images import to_array, to_images
from nodebench.models.chains.operation import LayerGradients

Kept = list[tuple[Any, ...]]
"""The arrays that the backward pass needs, one tuple per operation."""


class Computation(ABC):
    """A function of images and weights.

    Shapes: arrays [batch, height, width, channels], tensors [batch, channels, height, width].
    """

    weights: Sequence[Tensor]

    @abstractmethod
    def outputs(self, x: Any, kept: Kept | None) -> list[Any]:
        """The outputs; the arrays that their gradient needs are added to `kept`, if given."""

    @abstractmethod
    def pull(
        self, by_outputs: Sequence[Any], kept: Kept, needed: Sequence[bool]
    ) -> tuple[Any, LayerGradients]:
        """The gradients of the images and of all weights; None where one is not needed.

        `by_outputs` has None where the loss does not depend on an output.
        """

    @abstractmethod
    def by_torch(self, x: Tensor, weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """The outputs by torch operations, whose gradients can be differentiated."""


def computed(computation: Computation, x: Tensor) -> list[Tensor]:
    """The outputs, with a gradient if autograd is on."""
    has_gradient = any(each.requires_grad for each in (x, *computation.weights))
    if torch.is_grad_enabled() and has_gradient:
        return list(_Computed.apply(computation, x, *computation.weights))
    return list(map(to_images, _apart(computation.outputs(to_array(x), None), x)))


class _Computed(torch.autograd.Function):
    """(computation, x, its weights) -> the outputs."""

    @staticmethod
    def forward(
        ctx: Any, computation: Computation, x: Tensor, *_weights: Tensor
    ) -> tuple[Tensor, ...]:
        kept = Kept()
        arrays = _apart(computation.outputs(to_array(x), kept), x)
        outputs = tuple(map(to_images, arrays))
        of_outputs = {
            _place(array): out.detach().permute(0, 2, 3, 1)
            for array, out in zip(arrays, outputs, strict=True)
        }
        ctx.computation, ctx.counts = computation, list(map(len, kept))
        # Includes weights and outputs, so that torch detects changes before the backward pass.
        ctx.save_for_backward(
            x,
            *computation.weights,
            *(
                of_outputs[place]
                if (place := _place(array)) in of_outputs
                else torch.from_numpy(array)
                for array in itertools.chain(*kept)
            ),
        )
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx: Any, *by_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        computation: Computation = ctx.computation
        x, *saved = ctx.saved_tensors
        if all(by is None for by in by_outputs):
            return (None,) * len(ctx.needs_input_grad)
        if torch.is_grad_enabled():  # the gradient will be differentiated itself
            return None, *_pulled_by_torch(computation, x, by_outputs)
        arrays = iter([tensor.numpy() for tensor in saved[len(computation.weights) :]])
        kept = [tuple(itertools.islice(arrays, count)) for count in ctx.counts]
        by_arrays = [None if by is None else to_array(by) for by in by_outputs]
        by_x, by_weights = computation.pull(by_arrays, kept, ctx.needs_input_grad[1:])
        if by_x is not None:
            (by_x,) = _apart([by_x], *(by for by in by_outputs if by is not None))
        return None, None if by_x is None else to_images(by_x), *by_weights


def _apart(arrays: Sequence[Any], *others: Tensor) -> list[Any]:
    """The arrays, copied if necessary so that none shares memory with another or with a tensor.

    Two consecutive states are the same array if there is no step between their times.
    """
    places, found = {tensor.data_ptr() for tensor in others}, list[Any]()
    for array in arrays:
        found.append(array.copy() if _place(array) in places else array)
        places.add(_place(found[-1]))
    return found


def _place(array: Any) -> int:
    """An array's address in memory."""
    place: int = array.__array_interface__["data"][0]
    return place


def _pulled_by_torch(
    computation: Computation, x: Tensor, by_outputs: Sequence[Tensor | None]
) -> LayerGradients:
    """The gradients of the images and of all weights, which can be differentiated themselves."""
    # Views of the same tensors: the input may itself depend on the weights, by an earlier step.
    inputs = [v.view_as(v) if v.requires_grad else v for v in (x, *computation.weights)]
    outputs = computation.by_torch(inputs[0], inputs[1:])
    used = [number for number, by in enumerate(by_outputs) if by is not None]
    needed = [tensor for tensor in inputs if tensor.requires_grad]
    found = iter(
        torch.autograd.grad(
            [outputs[number] for number in used],
            needed,
            [by_outputs[number] for number in used],
            create_graph=True,
            allow_unused=True,
        )
    )
    return [next(found) if tensor.requires_grad else None for tensor in inputs]
