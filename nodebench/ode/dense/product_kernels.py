"""Products of weights with the values of a block of samples, compiled for the CPU by numba.

Sizes are multiples of `TILE_ROWS`, to which layers are padded.
"""

from __future__ import annotations

from nodebench.ode.compiled.decorators import compiled_part
from nodebench.ode.compiled.tile import set_tile, tile_rows
from nodebench.ode.compiled.tile_size import ROW_BYTES
from nodebench.ode.dense.activation_kernels import BLOCK


@compiled_part
def multiply(out, to, start, weights, place, shape, x, of):
    """Computes out = start + W x, where out starts at (row, column) `to`, and x at `of`.

    `start` is (an array, the index of the first row's value, the stride between rows).
    """
    outputs, inputs = shape
    values, first, distance = start
    out_pitch, x_pitch = out.shape[1] * BLOCK, x.shape[1] * BLOCK
    samples = ROW_BYTES // out.itemsize
    for j in range(0, BLOCK, samples):
        i = 0
        while i < outputs:
            rows = tile_rows(outputs - i)
            set_tile(
                rows,
                (out, (to[0] + i) * out_pitch + to[1] * BLOCK + j, out_pitch),
                (values, first + i * distance, distance),
                (weights, place + i * inputs, inputs, 0, 1),
                (x, of[0] * x_pitch + of[1] * BLOCK + j, 0, x_pitch),
                (1, inputs),
            )
            i += rows


@compiled_part
def add_outer(by_weights, place, shape, g, row, x, x_row, columns):
    """dL/dW += g x', over the first `columns`: four rows of g by two of x at a time."""
    outputs, inputs = shape
    zero = g.dtype.type(0)
    for i in range(row, row + outputs, 4):
        for k in range(x_row, x_row + inputs, 2):
            a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = zero
            for j in range(columns):
                x0, x1 = x[k, j], x[k + 1, j]
                a0 += g[i, j] * x0
                a1 += g[i, j] * x1
                b0 += g[i + 1, j] * x0
                b1 += g[i + 1, j] * x1
                c0 += g[i + 2, j] * x0
                c1 += g[i + 2, j] * x1
                d0 += g[i + 3, j] * x0
                d1 += g[i + 3, j] * x1
            p = place + (i - row) * inputs + k - x_row
            by_weights[p] += a0
            by_weights[p + 1] += a1
            p += inputs
            by_weights[p] += b0
            by_weights[p + 1] += b1
            p += inputs
            by_weights[p] += c0
            by_weights[p + 1] += c1
            p += inputs
            by_weights[p] += d0
            by_weights[p + 1] += d1
