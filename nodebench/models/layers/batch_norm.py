"""Batch norm as a part of a chain, in evaluation mode: a scale and a shift of each channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodebench.models.chains.images import (
    array_for,
    have_plain_weights,
    is_plain,
    to_array,
    to_images,
)
from nodebench.models.chains.operation import Operation, Output, Pulled, pull_rectified


def can_scale(norm: nn.Module, x: Tensor) -> TypeGuard[nn.BatchNorm2d]:
    """Whether a batch norm of images uses its running statistics and can be part of a chain."""
    return (
        isinstance(norm, nn.BatchNorm2d)
        and not norm.training
        and norm.affine
        and norm.num_features == x.shape[1]
        and norm.running_mean is not None
        and norm.running_var is not None
        and is_plain(norm.running_mean)
        and have_plain_weights(norm, x)
    )


class KeptStatistics(Operation):
    """A batch norm by its running statistics, bit-identical to torch's."""

    pulls_whole_batches = True

    def __init__(self, norm: nn.BatchNorm2d):
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None and variance is not None
        self.weights = (norm.weight, norm.bias)
        self._mean, self._variance, self._eps = mean, variance, norm.eps
        spread = variance.numpy() + variance.numpy().dtype.type(norm.eps)
        of_weights = (weight.detach().numpy() for weight in self.weights)
        self._arrays = (1 / np.sqrt(spread), mean.numpy(), *of_weights)

    def output(self, x: Any, _t: float, spare: Any = None) -> Output:
        """The output; the input is kept."""
        from nodebench.models.layers.norm_kernels import scale_channels  # numba takes a second

        out = array_for(x.shape, x, spare)

        def fill(samples: tuple[int, int]) -> None:
            scale_channels(samples, out, x, *self._arrays, self.least)

        return Output(out, fill, (x,))

    def pull(self, by_out: Any, kept: Sequence[Any], _t: float, needed: Sequence[bool]) -> Pulled:
        """The gradients of the input, and of scale and shift."""
        (x,), (of_x, *of_weights) = kept, needed
        by_x, *by_weights = torch.ops.aten.native_batch_norm_backward(
            to_images(by_out), to_images(x), self.weights[0].detach(), self._mean, self._variance,
            None, None, False, self._eps, (of_x, *of_weights),
        )  # fmt: skip
        if not of_x:
            return Pulled(None, None, lambda: by_weights)
        found = to_array(by_x)
        found = pull_rectified(found, x) if self.follows_relu else found
        return Pulled(found, None, lambda: by_weights)

    def by_torch(self, x: Tensor, _t: float, *weights: Tensor) -> Tensor:
        """The output by torch."""
        scale, shift = weights
        return F.batch_norm(x, self._mean, self._variance, scale, shift, eps=self._eps)
