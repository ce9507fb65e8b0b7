"""What a step is of: all samples together, or each sample alone.

Times, step sizes and errors are tensors without dimensions in the one case, and of shape [batch] in
the other; the rest of a solve is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from nodebench.ode.fixed import State


class Extent(Protocol):
    """What times, step sizes and errors are of."""

    def number(self, value: float, state: State) -> Tensor:
        """A time or size in float64, the same for all."""

    def size(self, state: State) -> Tensor:
        """The norm of a state, or of its errors."""

    def over(self, number: Tensor, part: Tensor) -> Tensor:
        """A time or size in the type of a tensor of the state, and in a shape that fits it."""


class WholeBatch:
    """One number for all samples. The norm is the largest root mean square among tensors."""

    def __init__(self, norm: Callable[[State], Tensor] | None):
        self._norm = norm

    def number(self, value: float, state: State) -> Tensor:
        """Without dimensions."""
        return state[0].new_full((), value, dtype=torch.float64)

    def size(self, state: State) -> Tensor:
        """Without dimensions."""
        if self._norm is not None:
            return self._norm(state)
        return torch.stack([part.square().mean().sqrt() for part in state]).max()

    def over(self, number: Tensor, part: Tensor) -> Tensor:
        """Without dimensions."""
        return number.to(part.dtype)


class EachSample:
    """A number for each sample, by the first dimension. The norm is its root mean square."""

    def number(self, value: float, state: State) -> Tensor:
        """Of shape [batch]."""
        return state[0].new_full((len(state[0]),), value, dtype=torch.float64)

    def size(self, state: State) -> Tensor:
        """Of shape [batch]."""
        return torch.stack([part.flatten(1).square().mean(1).sqrt() for part in state]).amax(0)

    def over(self, number: Tensor, part: Tensor) -> Tensor:
        """Of shape [batch, 1, ...], with as many dimensions as the tensor."""
        return number.to(part.dtype).view(-1, *(1,) * (part.dim() - 1))
