"""Convolutions over a signal of few positions, as matrix products: the same function, faster.

The matrix is made from the kernel, which stays the parameter, once per solve. Euler's method with
64 steps takes a quarter of the time on two positions, and four fifths on ten (one CPU thread, batch
128, 32 channels). Beyond `DENSE_POSITIONS`, the matrix is mostly zeros, and the convolution is
faster.
"""

from __future__ import annotations

from functools import cache, reduce

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nodebench.ode.dense.parts import Floats


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
        # Unsafe, since the result and the parameter have different shapes.
        parametrize.register_parametrization(linear, name, parametrization, unsafe=True)
    return linear


class _Matrix(nn.Module):
    """A kernel [outputs, inputs, taps] as a matrix [outputs * length, inputs * length].

    Both may have leading dimensions of seeds.
    """

    def __init__(self, conv: nn.Conv1d, length: int):
        super().__init__()
        (self.width,), padding = conv.kernel_size, int(conv.padding[0])
        assert 2 * padding == self.width - 1 and conv.stride == conv.dilation == (1,)
        self.length = length
        # (output position, input position, the tap that connects them)
        self._nonzero = [
            (to, to + tap - padding, tap)
            for tap in range(self.width)
            for to in range(length)
            if 0 <= to + tap - padding < length
        ]

    def forward(self, kernel: Tensor) -> Tensor:
        *seeds, outputs, inputs, _ = kernel.shape
        taps = _taps(self.width, self.length, kernel.dtype, kernel.device)
        entries = (kernel @ taps).view(*seeds, outputs, inputs, self.length, self.length)
        matrix = entries.transpose(-3, -2)
        return matrix.reshape(*seeds, outputs * self.length, inputs * self.length)

    def write(self, kernels: Floats, matrices: Floats) -> None:
        """Writes the matrix of each seed's kernel into zeros."""
        entries = self._entries(matrices)
        for to, of, tap in self._nonzero:
            entries[:, :, to, :, of] = kernels[..., tap]

    def pull(self, by_matrices: Floats) -> Floats:
        """The gradients of the kernels, from those of the matrices."""
        entries = self._entries(by_matrices)
        by_kernels = np.zeros((*entries[:, :, 0, :, 0].shape, self.width), entries.dtype)
        for to, of, tap in self._nonzero:
            by_kernels[..., tap] += entries[:, :, to, :, of]
        return by_kernels

    def _entries(self, matrices: Floats) -> Floats:
        """A view of matrices, [seeds, outputs, output positions, inputs, input positions]."""
        seeds, rows, columns = matrices.shape
        outputs, inputs = rows // self.length, columns // self.length
        return matrices.reshape(seeds, outputs, self.length, inputs, self.length)


@cache
def _taps(width: int, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """taps[j, p * length + q] is 1 where output position p sees input position q through tap j."""
    offset = torch.arange(length) - torch.arange(length)[:, None] + width // 2
    is_tap = torch.arange(width)[:, None] == offset.flatten()
    return is_tap.to(dtype=dtype, device=device)


class _AtEveryPosition(nn.Module):
    """A bias [outputs], repeated: [outputs * length]. Both may have leading dimensions of seeds."""

    def __init__(self, length: int):
        super().__init__()
        self.length = length

    def forward(self, bias: Tensor) -> Tensor:
        return bias.repeat_interleave(self.length, dim=-1)

    def write(self, biases: Floats, repeated: Floats) -> None:
        """Writes each seed's bias, repeated."""
        repeated.reshape(len(biases), -1, self.length)[...] = biases[..., None]

    def pull(self, by_repeated: Floats) -> Floats:
        """The gradients of the biases, from those of the repeated biases."""
        at_positions = by_repeated.reshape(len(by_repeated), -1, self.length)
        return reduce(np.add, (at_positions[..., at] for at in range(self.length)))
