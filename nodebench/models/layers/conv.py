"""Convolutions of images, in the form that is fastest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodebench.models.chains.chain import Chain
from nodebench.models.chains.images import (
    COMPILED,
    are_compiled,
    array_for,
    have_plain_weights,
    to_array,
    to_images,
)
from nodebench.models.chains.operation import (
    Fill,
    LayerGradients,
    Operation,
    Output,
    Pulled,
    pull_rectified,
)
from nodebench.ode.compiled.tile_size import ROW_BYTES, TILE_ROWS

OUTPUTS = {dtype: ROW_BYTES // dtype.itemsize for dtype in COMPILED}
"""The outputs that a compiled convolution computes at once, for `TILE_ROWS` samples."""


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, compiled for channels-last images on the CPU."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # as torch calls it
        """[batch, inputs, height, width] -> [batch, outputs, ...]."""
        if are_compiled(input) and can_convolve(self, input):
            return Chain([Convolution(self, input, self.weight, self.bias)])(0.0, input)
        return super().forward(input)


def convolved(
    conv: nn.Conv1d | nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """The convolution with other filters, which may omit the first channels', and another bias."""
    if are_compiled(x) and can_convolve(conv, x, of_time=conv.in_channels - weight.shape[1]):
        return Chain([Convolution(conv, x, weight, bias)])(0.0, x)
    return conv._conv_forward(x, weight, bias)


def can_convolve(conv: nn.Module, x: Tensor, of_time: int = 0) -> TypeGuard[nn.Conv2d]:
    """Whether a convolution of x and `of_time` channels of time can be part of a chain.

    The weight is not accessed, because every access changes a spectral norm.
    """
    return (
        isinstance(conv, nn.Conv2d)
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and all(each == (each[0],) * 2 for each in (conv.kernel_size, conv.stride, conv.padding))
        and conv.in_channels == x.shape[1] + of_time
        and have_plain_weights(conv, x)
        and len(x) >= TILE_ROWS
        and (x.shape[1] == 1 or x.shape[1] % TILE_ROWS == 0)
        and conv.out_channels % OUTPUTS[x.dtype] == 0
        and min(x.shape[2:]) + 2 * int(conv.padding[0]) >= conv.kernel_size[0]
    )


class Convolution(Operation):
    """conv(x) + bias + t * of_time, where `of_time` is the convolution of a channel of ones.

    Shapes: x [batch, inputs, height, width], used for its size only; weight [outputs, inputs, taps,
    taps]; of_time [1, outputs, rows, columns].
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        of_time: Tensor | None = None,
    ):
        self.weight, self.bias, self.of_time = weight, bias, of_time
        self.weights = [each for each in (weight, bias, of_time) if each is not None]
        self._grid = self._stride, self._padding = conv.stride[0], int(conv.padding[0])
        self._taps = weight.shape[2]
        self._filters = _tiled(weight.detach())
        size = _size(x.shape[2:], self._taps, *self._grid)
        self._summands = _summands(bias, (*size, len(weight)), self._filters.dtype)
        self.pulls_whole_batches = not (
            self._stride == 1
            and self._padding < self._taps
            and weight.shape[1] % OUTPUTS[weight.dtype] == 0
        )
        self._of_time: Any = None
        if of_time is not None:
            self._of_time = of_time.detach().permute(0, 2, 3, 1).contiguous().numpy()

    def output(self, x: Any, t: float, spare: Any = None) -> Output:
        """The output; the input is kept."""
        summands = self._summands
        if self._of_time is not None:
            of_time = self._of_time * self._of_time.dtype.type(t)
            summands = np.concatenate([summands, of_time]) if len(summands) else of_time
        out, fill = _convolved(
            x, self._filters, summands, self._grid, least=self.least, spare=spare
        )
        return Output(out, fill, (x,))

    def pull(self, by_out: Any, kept: Sequence[Any], t: float, needed: Sequence[bool]) -> Pulled:
        """The gradients of the input, and of weight, bias and `of_time`."""
        (x,), (of_x, *of_weights) = kept, needed
        by_x, fill = self._by_input(by_out, x) if of_x else (None, None)
        by_weight, fill_weight = self._by_weight(by_out, x) if of_weights[0] else (None, None)

        def by_weights() -> LayerGradients:
            found = by_weight() if by_weight else None
            return [found, *self._by_summands(by_out, t, of_weights[1:])]

        return Pulled(by_x, fill, by_weights, fill_weight, x.shape[3])

    def by_torch(self, x: Tensor, t: float, *weights: Tensor) -> Tensor:
        """The output by torch."""
        bias = None if self.bias is None else weights[1]
        out = F.conv2d(x, weights[0], bias, *self._grid)
        return out if self.of_time is None else out + weights[-1] * t

    def _by_input(self, by_out: Any, x: Any) -> tuple[Any, Fill | None]:
        """The gradient of the input, which at stride 1 is a convolution too."""
        if not self.pulls_whole_batches:
            rectified = x if self.follows_relu else None
            grid = (1, self._taps - 1 - self._padding)
            return _convolved(by_out, self._turned, self._summands[:0], grid, rectified)
        sizes = [(size,) * 2 for size in (*self._grid, 1)]
        by_x, _, _ = torch.ops.aten.convolution_backward(
            to_images(by_out), to_images(x), self.weight.detach(), None, *sizes,
            False, (0, 0), 1, (True, False, False),
        )  # fmt: skip
        return pull_rectified(to_array(by_x), x) if self.follows_relu else to_array(by_x), None

    def _by_summands(self, by_out: Any, t: float, needed: Sequence[bool]) -> LayerGradients:
        """The gradients of bias and `of_time`."""
        if not any(needed):
            return [None] * len(needed)
        by_sum = torch.from_numpy(by_out).sum(0)
        found = [] if self.bias is None else [by_sum.sum((0, 1))]
        if self.of_time is not None:
            found.append((by_sum * t).permute(2, 0, 1)[None])
        return found

    def _by_weight(self, by_out: Any, x: Any) -> tuple[Callable[[], Tensor], Fill | None]:
        """The gradient of the weight, and the function that fills it."""
        from nodebench.models.layers.conv_kernels import pull_weights  # numba takes a second

        if x.shape[3] == 1:
            return partial(self._by_weight_of_one_channel, by_out, x), None
        shape = (self._taps, self._taps, x.shape[3], by_out.shape[3])
        found = torch.empty(shape, dtype=self.weight.dtype).permute(3, 2, 0, 1)

        def fill(inputs: tuple[int, int]) -> None:
            pull_weights(inputs, found.permute(2, 3, 1, 0).numpy(), by_out, x, self._grid)

        return lambda: found, fill

    def _by_weight_of_one_channel(self, by_out: Any, x: Any) -> Tensor:
        """The gradient of a single channel's weight: a product with the patch each output sees."""
        taps, outputs = self._taps, by_out.shape[3]
        patches = F.pad(torch.from_numpy(x[..., 0]), (self._padding,) * 4)
        for dimension in (1, 2):
            patches = patches.unfold(dimension, taps, self._stride)
        of_taps = torch.from_numpy(by_out).view(-1, outputs)
        found = patches.reshape(len(of_taps), -1).t() @ of_taps
        return found.t().view(outputs, 1, taps, taps)

    @cached_property
    def _turned(self) -> Any:
        """The filters of the gradient of the input."""
        return _tiled(self.weight.detach().flip(2, 3).transpose(0, 1))


def _tiled(weight: Tensor) -> Any:
    """[outputs, inputs, taps, taps] -> filters as `convolve` takes them.

    A tile's weights are adjacent in memory. In rows of all outputs, the tiles of a wide layer would
    share few sets of the cache.
    """
    tiles = weight.unflatten(0, (-1, OUTPUTS[weight.dtype]))
    return tiles.permute(0, 3, 4, 2, 1).contiguous().numpy()


def _size(lengths: Sequence[int], taps: int, stride: int, padding: int) -> list[int]:
    """The height and width of the output."""
    return [(length + 2 * padding - taps) // stride + 1 for length in lengths]


def _summands(bias: Tensor | None, shape: tuple[int, ...], dtype: Any) -> Any:
    """The bias as [1, *shape]; [0, *shape] if there is none."""
    if bias is None:
        return np.empty((0, *shape), dtype)
    return bias.detach().expand(1, *shape).contiguous().numpy()


def _convolved(
    x: Any,
    filters: Any,
    summands: Any,
    grid: tuple[int, int],
    rectified: Any = None,
    least: float = -math.inf,
    spare: Any = None,
) -> tuple[Any, Fill]:
    """The convolution by filters as `_tiled` makes them, plus the summands.

    The grid is (stride, padding). No value is below `least`, and values are 0 where `rectified` is.
    """
    from nodebench.models.layers.conv_kernels import convolve  # numba takes a second

    size = _size(x.shape[1:3], filters.shape[1], *grid)
    out = array_for((len(x), *size, len(filters) * filters.shape[4]), x, spare)
    rectified = out[:0] if rectified is None else rectified

    def fill(samples: tuple[int, int]) -> None:
        convolve(samples, out, x, filters, summands, grid, least, rectified)

    return out, fill
