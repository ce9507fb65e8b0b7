"""Convolutions of images, in the form that is fastest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodebench.models.layers.chain import Chain, LayerGradients
from nodebench.models.layers.images import are_compiled, is_plain

SAMPLES = 4
"""Compiled code takes so many samples, and so many inputs, at once."""

OUTPUTS = {torch.float32: 16, torch.float64: 8}
"""And so many outputs."""


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, compiled for images on the CPU whose channels lie side by side."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # as torch calls it
        """[batch, inputs, height, width] -> [batch, outputs, ...]."""
        if are_compiled(input) and can_convolve(self, input):
            return Chain([Convolution(input, self.weight, self.bias)])(0.0, input)
        return super().forward(input)


def can_convolve(conv: nn.Module, x: Tensor) -> bool:
    """Whether a convolution of this input, or of a channel of time and it, can be part of a chain.

    It can be if the output is as large as the input, the filters are of 3 x 3, and compiled code
    takes the numbers of samples and channels. The weight is not asked for: a spectral norm changes
    whenever it is.
    """
    return (
        isinstance(conv, nn.Conv2d)
        and conv.kernel_size == (3, 3)
        and conv.stride == conv.padding == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and is_plain(next(conv.parameters()))
        and len(x) >= SAMPLES
        and all(size % OUTPUTS[x.dtype] == 0 for size in (x.shape[1], conv.out_channels))
    )


class Convolution:
    """A convolution as a part of a chain, plus its bias, and t times what it is of t's channel.

    Shapes: weight [outputs, inputs, 3, 3], bias [outputs], of_time [1, outputs, height, width];
    x is an input, as large as all will be.
    """

    def __init__(
        self, x: Tensor, weight: Tensor, bias: Tensor | None = None, of_time: Tensor | None = None
    ):
        self.weight, self.bias, self.of_time = weight, bias, of_time
        self.weights = tuple(each for each in (weight, bias, of_time) if each is not None)
        size = (1, *x.shape[2:], len(weight))
        self._filters = weight.detach().permute(2, 3, 1, 0).contiguous().numpy()
        self._bias = np.empty((0, *size[1:]), self._filters.dtype)
        self._of_time = None
        if bias is not None:
            self._bias = bias.detach().expand(size).contiguous().numpy()
        if of_time is not None:
            self._of_time = of_time.detach().permute(0, 2, 3, 1).contiguous().numpy()

    def output(self, x: Any, t: float) -> tuple[Any, tuple[Any, ...]]:
        """The output; the input is kept."""
        summands = self._bias
        if self._of_time is not None:
            summands = self._of_time * self._of_time.dtype.type(t)
            if self.bias is not None:
                summands = np.concatenate([self._bias, summands])
        return _convolved(x, self._filters, summands), (x,)

    def pull(
        self, by_out: Any, kept: Sequence[Any], t: float, needed: Sequence[bool]
    ) -> tuple[Any, LayerGradients]:
        """The gradients of the input, and of weight, bias and `of_time`."""
        of_x, of_weight, *of_summands = needed
        by_x = _convolved(by_out, self._turned, self._bias[:0]) if of_x else None
        found: list[Tensor | None] = [_pulled(by_out, kept[0]) if of_weight else None]
        if any(of_summands):
            by_sum = torch.from_numpy(by_out).sum(0)
            if self.bias is not None:
                found.append(by_sum.sum((0, 1)))
            if self.of_time is not None:
                found.append((by_sum * t).permute(2, 0, 1)[None])
        else:
            found += [None] * len(of_summands)
        return by_x, found

    def by_torch(self, x: Tensor, t: float) -> Tensor:
        """The output by torch."""
        out = F.conv2d(x, self.weight, self.bias, padding=1)
        return out if self.of_time is None else out + self.of_time * t

    @cached_property
    def _turned(self) -> Any:
        """The filters of the gradient of the input, which is a convolution too."""
        return np.ascontiguousarray(self._filters[::-1, ::-1].transpose(0, 1, 3, 2))


def _convolved(x: Any, filters: Any, summands: Any) -> Any:
    """The convolution by filters [3, 3, inputs, outputs], plus the summands."""
    from nodebench.models.layers.conv_kernels import convolve  # numba takes a second
    from nodebench.ode.compiled import in_threads

    out = np.empty((*x.shape[:3], filters.shape[3]), x.dtype)
    in_threads(convolve, -(-len(x) // SAMPLES), out, x, filters, summands)
    return out


def _pulled(by_out: Any, x: Any) -> Tensor:
    """The gradient of the weight."""
    from nodebench.models.layers.conv_kernels import pull_weights  # numba takes a second
    from nodebench.ode.compiled import in_threads

    inputs, outputs = x.shape[3], by_out.shape[3]
    found = np.zeros((3, 3, inputs, outputs), x.dtype)
    in_threads(pull_weights, inputs // SAMPLES, found, by_out, x)
    return torch.from_numpy(found).permute(3, 2, 0, 1)
