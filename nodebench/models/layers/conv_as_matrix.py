"""Convolutions over a signal of few positions, as matrix products: the same function, faster.

The matrix is made from the kernel, which stays the parameter, once per solve. Euler's method with
64 steps on two positions takes a fourth of the time, on ten positions four fifths (one CPU
thread, batch 128, 32 channels); beyond `DENSE_POSITIONS` the matrix is mostly zeros, and the
convolution is faster.
"""

from __future__ import annotations

from functools import cache

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
    """A kernel [outputs, inputs, taps] as a matrix [outputs * length, inputs * length].

    Both may have seeds before.
    """

    def __init__(self, conv: nn.Conv1d, length: int):
        super().__init__()
        (self.width,), padding = conv.kernel_size, int(conv.padding[0])
        assert 2 * padding == self.width - 1 and conv.stride == conv.dilation == (1,)
        self.length = length

    def forward(self, kernel: Tensor) -> Tensor:
        *seeds, outputs, inputs, _ = kernel.shape
        entries = (kernel @ self._taps(kernel)).view(
            *seeds, outputs, inputs, self.length, self.length
        )
        matrix = entries.transpose(-3, -2)
        return matrix.reshape(*seeds, outputs * self.length, inputs * self.length)

    def pull(self, by_matrix: Tensor) -> Tensor:
        """The gradient of the kernel, from the matrix's."""
        *seeds, rows, columns = by_matrix.shape
        outputs, inputs = rows // self.length, columns // self.length
        by_entries = by_matrix.reshape(*seeds, outputs, self.length, inputs, self.length)
        by_entries = by_entries.transpose(-3, -2).reshape(*seeds, outputs, inputs, -1)
        return by_entries @ self._taps(by_matrix).t()

    def _taps(self, like: Tensor) -> Tensor:
        return _taps(self.width, self.length, like.dtype, like.device)


@cache
def _taps(width: int, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Taps[j, p * length + q] is 1 where output position p sees input position q through tap j."""
    offset = torch.arange(length) - torch.arange(length)[:, None] + width // 2
    is_tap = torch.arange(width)[:, None] == offset.flatten()
    return is_tap.to(dtype=dtype, device=device)


class _AtEveryPosition(nn.Module):
    """A bias [outputs], repeated: [outputs * length]. Both may have seeds before."""

    def __init__(self, length: int):
        super().__init__()
        self.length = length

    def forward(self, bias: Tensor) -> Tensor:
        return bias.repeat_interleave(self.length, dim=-1)

    def pull(self, by_repeated: Tensor) -> Tensor:
        """The gradient of the bias, from that of what is repeated."""
        return by_repeated.reshape(*by_repeated.shape[:-1], -1, self.length).sum(-1)
