"""The extent of a step: the whole batch or a single sample.

Times, step sizes and errors are scalar tensors in the first case, and have shape [batch] in the
second; the rest of a solve is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from nodebench.ode.steppers.stepper import State


class Extent(Protocol):
    """Whether times, step sizes and errors belong to the batch or to each sample."""

    def number(self, value: float, state: State) -> Tensor:
        """A time or step size in float64, the same for all samples."""

    def size(self, state: State) -> Tensor:
        """The norm of a state, or of its errors."""

    def over(self, number: Tensor, part: Tensor) -> Tensor:
        """A time or step size with the type of a tensor of the state, and a shape that fits it."""


class WholeBatch:
    """One number for all samples. The default norm is the largest root mean square of a tensor."""

    def __init__(self, norm: Callable[[State], Tensor] | None):
        self._norm = norm

    def number(self, value: float, state: State) -> Tensor:
        """A scalar tensor."""
        return state[0].new_full((), value, dtype=torch.float64)

    def size(self, state: State) -> Tensor:
        """A scalar tensor."""
        if self._norm is not None:
            return self._norm(state)
        return torch.stack([part.square().mean().sqrt() for part in state]).max()

    def over(self, number: Tensor, part: Tensor) -> Tensor:
        """A scalar tensor."""
        return number.to(part.dtype)


class EachSample:
    """One number per sample. The norm is a sample's largest root mean square among the tensors."""

    def number(self, value: float, state: State) -> Tensor:
        """Of shape [batch]."""
        return state[0].new_full((len(state[0]),), value, dtype=torch.float64)

    def size(self, state: State) -> Tensor:
        """Of shape [batch]."""
        return torch.stack([part.flatten(1).square().mean(1).sqrt() for part in state]).amax(0)

    def over(self, number: Tensor, part: Tensor) -> Tensor:
        """Of shape [batch, 1, ...], with as many dimensions as the tensor."""
        return number.to(part.dtype).view(-1, *(1,) * (part.dim() - 1))
