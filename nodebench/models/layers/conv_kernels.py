"""Convolutions of images and the gradients of their filters, compiled for the CPU by numba.

Torch's own kernels take 1.5 times as long for the gradient of the filters, and several times as
long on images with few positions, with one channel, or in double precision.

Shapes: x [samples, height, width, inputs]; out and by_out [samples, rows, columns, outputs];
filters [outputs / tile, taps, taps, inputs, tile], where a tile is `ROW_BYTES` of outputs; grid
(stride, padding). Output (r, c) sees input (stride r - padding + a, stride c - padding + b) through
tap (a, b).
"""

from __future__ import annotations

from nodebench.ode.compiled.decorators import compiled, compiled_part
from nodebench.ode.compiled.tile import add_tile, tile_rows
from nodebench.ode.compiled.tile_size import ROW_BYTES

BAND_BYTES = 32768
"""The bytes of an image that are processed at once, to stay in a core's L1 cache."""

IMAGES_BYTES = 20480
"""The bytes of whole images that are summed before sums are stored.

At most `BAND_BYTES`: such images are one band, so that sums are over all positions in order.
"""


@compiled
def convolve(items, out, x, filters, summands, grid, least, rectified):
    """Fills the output of at least `TILE_ROWS` samples.

    Summands [any, rows, columns, outputs] are added. The result is then clamped from below to
    `least`, and set to 0 where `rectified` (of the output's shape, or without samples) is 0.
    """
    _, height, width, inputs = x.shape
    rows, columns, outputs = out.shape[1:]
    taps, tile = filters.shape[1], filters.shape[4]
    stride, padding = grid
    end = items[0]
    while end < items[1]:
        # If fewer than `TILE_ROWS` remain, the last ones are computed, some of them again.
        count = tile_rows(items[1] - end)
        n = min(end, items[1] - count)
        end = n + count
        for row in range(rows):
            up, high = _seen(row * stride - padding, taps, height)
            for column in range(columns):
                left, wide = _seen(column * stride - padding, taps, width)
                out[n:end, row, column] = 0
                to = ((n * rows + row) * columns + column) * outputs
                top, first = row * stride - padding + up, column * stride - padding + left
                of = ((n * height + top) * width + first) * inputs
                by = (up * taps + left) * inputs * tile
                for k in range(0, outputs, tile):
                    add_tile(
                        count,
                        (out, to + k, rows * columns * outputs),
                        (x, of, height * width * inputs, width * inputs, 1),
                        (filters, by + k * taps * taps * inputs, taps * inputs * tile, tile),
                        (high, wide * inputs),
                    )
                for sample in range(n, end):
                    for each in range(len(summands)):
                        _add(out[sample, row, column], summands[each, row, column])
                    _clamp(out[sample, row, column], out.dtype.type(least))
                    if len(rectified):
                        _mask_gradients(out[sample, row, column], rectified[sample, row, column])


@compiled
def pull_weights(items, by_weights, by_out, x, grid):
    """Sets the gradient of some inputs' filters, over all samples.

    It is [taps, taps, inputs, outputs]; the number of inputs is a multiple of `TILE_ROWS`.
    """
    samples, height, width, inputs = x.shape
    rows, columns, outputs = by_out.shape[1:]
    taps, (stride, padding) = len(by_weights), grid
    row_bytes = width * max(inputs, outputs) * x.itemsize
    band = max(1, BAND_BYTES // row_bytes)
    together = max(1, IMAGES_BYTES // (row_bytes * rows))
    of_steps = (1, height * width * inputs, stride * width * inputs, stride * inputs)
    by_steps = (rows * columns * outputs, columns * outputs, outputs)
    by_weights[:, :, items[0] : items[1]] = 0
    for n in range(0, samples, together):
        for first in range(0, rows, band):
            for tap in range(taps * taps):
                down, right = tap // taps - padding, tap % taps - padding
                top, bottom = _seeing(down, stride, height, first, min(first + band, rows))
                left, end = _seeing(right, stride, width, 0, columns)
                by = ((n * rows + top) * columns + left) * outputs
                of = ((n * height + top * stride + down) * width + left * stride + right) * inputs
                counts = min(together, samples - n), max(0, bottom - top), max(0, end - left)
                i = items[0]
                while i < items[1]:
                    channels = tile_rows(items[1] - i)
                    for k in range(0, outputs, ROW_BYTES // x.itemsize):
                        add_tile(
                            channels,
                            (by_weights, (tap * inputs + i) * outputs + k, outputs),
                            (x, of + i, *of_steps),
                            (by_out, by + k, *by_steps),
                            counts,
                        )
                    i += channels


@compiled_part
def _add(values, summands):
    for k in range(len(values)):
        values[k] += summands[k]


@compiled_part
def _clamp(values, least):
    for k in range(len(values)):
        values[k] = least if values[k] < least else values[k]


@compiled_part
def _mask_gradients(gradients, rectified):
    """Sets gradients to 0 where a ReLU's output is 0."""
    for k in range(len(gradients)):
        gradients[k] = gradients.dtype.type(0) if rectified[k] <= 0 else gradients[k]


@compiled_part
def _seen(start, taps, size):
    """The first tap from `start` that lies within the image, and the number of taps that do."""
    first = max(0, -start)
    return first, max(0, min(taps, size - start) - first)


@compiled_part
def _seeing(offset, stride, size, first, end):
    """The range of outputs from `first` to `end` that see the image through a tap."""
    return max(first, -(offset // stride)), min(end, (size - 1 - offset) // stride + 1)
