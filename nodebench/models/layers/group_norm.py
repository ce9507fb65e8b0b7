"""Group norm, in the form that is fastest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodebench.models.chains.chain import Chain
from nodebench.models.chains.images import are_compiled, array_for, have_plain_weights
from nodebench.models.chains.operation import Operation, Output, Pulled


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, compiled for channels-last images on the CPU.

    Shapes: [batch, channels, ...], as the input.
    """

    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore[bad-override-param-name]
        """The input with mean 0 and variance 1 in each group, then scaled and shifted."""
        if are_compiled(x) and can_normalize(self, x):
            return Chain([Normalization(self)])(0.0, x)
        return super().forward(x)


def can_normalize(norm: nn.Module, x: Tensor) -> TypeGuard[GroupNorm]:
    """Whether a norm of images can be part of a chain."""
    return (
        isinstance(norm, GroupNorm)
        and norm.affine
        and norm.num_channels == x.shape[1]
        and have_plain_weights(norm, x)
    )


class Normalization(Operation):
    """A group norm as a part of a chain."""

    def __init__(self, norm: nn.GroupNorm):
        self.weights = (norm.weight, norm.bias)
        self._groups, self._eps = norm.num_groups, norm.eps
        self._scale, self._shift = (weight.detach().numpy() for weight in self.weights)

    def output(self, x: Any, _t: float, spare: Any = None) -> Output:
        """The output; keeps the input, and means and inverse deviations [2, batch, groups]."""
        from nodebench.models.layers.norm_kernels import normalize  # numba takes a second

        out, statistics = array_for(x.shape, x, spare), array_for((2, len(x), self._groups), x)

        def fill(samples: tuple[int, int]) -> None:
            normalize(
                samples, out, x, self._scale, self._shift, statistics, self._eps, self.least
            )  # fmt: skip

        return Output(out, fill, (x, statistics))

    def pull(self, by_out: Any, kept: Sequence[Any], _t: float, _needed: Sequence[bool]) -> Pulled:
        """The gradients of the input, and of scale and shift."""
        from nodebench.models.layers.norm_kernels import pull_normalize

        x, statistics = kept
        by_x, by_weights = array_for(x.shape, x), array_for((2, len(x), len(self._scale)), x)
        threshold = 0.0 if self.follows_relu else math.nan

        def fill(samples: tuple[int, int]) -> None:
            pull_normalize(
                samples, by_x, by_weights, by_out, x, self._scale, statistics, threshold
            )  # fmt: skip

        return Pulled(by_x, fill, lambda: torch.from_numpy(by_weights).sum(1).unbind())

    def by_torch(self, x: Tensor, _t: float, *weights: Tensor) -> Tensor:
        """The output by torch."""
        scale, shift = weights
        return F.group_norm(x, self._groups, scale, shift, self._eps)
