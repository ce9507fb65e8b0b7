"""Convolutions over a signal of few positions, as matrix products: the same function, faster.

The matrix is made from the kernel, which stays the parameter, once per solve. Euler's method with
64 steps on two positions takes a fourth of the time, on ten positions four fifths (one CPU
thread, batch 128, 32 channels); beyond `DENSE_POSITIONS` the matrix is mostly zeros, and the
convolution is faster.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


def folded(field: nn.Sequential, length: int) -> nn.Sequential:
    """A sequence of one-dimensional convolutions and activations, for signals of `length`.

    Shapes: the original's [batch, channels, length], flattened to [batch, channels * length].
    """
    return nn.Sequential(
        *(_linear(part, length) if isinstance(part, nn.Conv1d) else part for part in field)
    )


def _linear(conv: nn.Conv1d, length: int) -> nn.Linear:
    """The convolution as a linear layer whose weight and bias are made from the convolution's."""
    assert isinstance(conv.bias, nn.Parameter)
    linear = nn.Linear(conv.in_channels * length, conv.out_channels * length, device="meta")
    linear.weight, linear.bias = conv.weight, conv.bias
    made = {"weight": _Matrix(conv, length), "bias": _AtEveryPosition(length)}
    for name, parametrization in made.items():
        # Unsafe, since the made one has another shape than the parameter.
        parametrize.register_parametrization(linear, name, parametrization, unsafe=True)
    return linear


class _Matrix(nn.Module):
    """A kernel [outputs, inputs, taps] as a matrix [outputs * length, inputs * length]."""

    taps: Tensor

    def __init__(self, conv: nn.Conv1d, length: int):
        super().__init__()
        (width,), padding = conv.kernel_size, int(conv.padding[0])
        assert 2 * padding == width - 1 and conv.stride == conv.dilation == (1,)
        # taps[j, p * length + q] is 1 where output position p sees input position q through tap j.
        offset = torch.arange(length) - torch.arange(length)[:, None] + padding
        taps = (torch.arange(width)[:, None] == offset.flatten()).float()
        self.register_buffer("taps", taps, persistent=False)
        self.length = length

    def forward(self, kernel: Tensor) -> Tensor:
        outputs, inputs, _ = kernel.shape
        entries = (kernel @ self.taps).view(outputs, inputs, self.length, self.length)
        matrix = entries.transpose(1, 2)
        return matrix.reshape(outputs * self.length, inputs * self.length)


class _AtEveryPosition(nn.Module):
    """A bias [outputs], repeated: [outputs * length]."""

    def __init__(self, length: int):
        super().__init__()
        self.length = length

    def forward(self, bias: Tensor) -> Tensor:
        return bias.repeat_interleave(self.length)
