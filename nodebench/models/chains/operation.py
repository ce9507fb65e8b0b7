"""The operations of layers on images, compiled for the CPU: the parts of a chain."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from nodebench.models.chains.images import array_for
from nodebench.ode.compiled.tile_size import TILE_ROWS

LayerGradients = Sequence[Tensor | None]
Fill: TypeAlias = Callable[[tuple[int, int]], None]
"""Fills an array for the samples, or other parts, from the first number up to the second."""


class Output(NamedTuple):
    """An operation's output, the function that fills it, and the arrays kept for the gradient."""

    images: Any
    fill: Fill
    kept: tuple[Any, ...]


class Pulled(NamedTuple):
    """The gradient of an operation's input, the function that fills it, and the weights' gradients.

    `fill` is None if `images` is already filled or not needed. After all images have been filled,
    `fill_weights` is called for all `parts`, and then `by_weights`.
    """

    images: Any
    fill: Fill | None
    by_weights: Callable[[], LayerGradients]
    fill_weights: Fill | None = None
    parts: int = 0


class Operation(ABC):
    """A layer's operation on images, which are arrays [batch, height, width, channels].

    Each sample is processed independently. `output` and `pull` only allocate: the arrays that they
    are given may still be empty, and are filled by the time that `fill` is called.
    """

    weights: Sequence[Tensor] = ()
    """The tensors that get gradients."""

    applies_relu = False
    """Whether a ReLU follows, which this operation applies itself."""

    follows_relu = False
    """Whether its input comes from a ReLU, whose gradient this operation applies itself."""

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
        """The output before the ReLU, by torch operations whose gradients can be differentiated."""


class Fills:
    """The pending fills of arrays with this many samples, or other parts, in order."""

    def __init__(self, parts: int):
        self._parts = parts
        self._waiting = list[Fill]()

    def add(self, fill: Fill) -> None:
        """Appends a fill to the others."""
        self._waiting.append(fill)

    def run(self) -> None:
        """Runs all fills, in as many threads as torch may use.

        Each thread takes some of the parts through all fills, so that threads wait only once.
        """
        from nodebench.ode.compiled.threads import in_threads  # numba takes a second

        if self._waiting:
            in_threads(_take_through, self._parts, self._waiting, together=TILE_ROWS)
            self._waiting = list[Fill]()


def _take_through(parts: tuple[int, int], fills: Sequence[Fill]) -> None:
    for fill in fills:
        fill(parts)


class Rectifier(Operation):
    """max(0, x) as the first or the last operation of a chain."""

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
    """The gradient of a ReLU's input, from that of its output `out`."""
    tensors = map(torch.from_numpy, (by_out, out))
    return torch.ops.aten.threshold_backward(*tensors, 0).numpy()
