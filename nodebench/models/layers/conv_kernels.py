"""Convolutions of images with 3 x 3 filters, compiled for the CPU by numba.

Torch's own take half as long again for the gradient of the filters, and several times as long on
images of few positions or in double precision.

Shapes: x [samples, height, width, inputs]; out and by_out [samples, height, width, outputs], which
are as large as x; weights [3, 3, inputs, outputs].
"""

from __future__ import annotations

from nodebench.ode.compiled import compiled, compiled_part
from nodebench.ode.tile import TILE_ROWS, VECTOR_BYTES, VECTORS, add_tile

BAND_BYTES = 32768
"""So much of an image is taken at once: it stays in a core's first cache."""


@compiled
def convolve(items, out, x, weights, summands):
    """Fills the output of each four samples; summands [any, height, width, outputs] are added."""
    samples, height, width, inputs = x.shape
    outputs = weights.shape[3]
    to_next = height * width
    for item in range(items[0], items[1]):
        n = min(
            item * TILE_ROWS, samples - TILE_ROWS
        )  # the last four may be partly of the four before
        for row in range(height):
            top, rows = _taps(row, height)
            for column in range(width):
                left, columns = _taps(column, width)
                out[n : n + TILE_ROWS, row, column] = 0
                to = ((n * height + row) * width + column) * outputs
                of = ((n * height + row + top - 1) * width + column + left - 1) * inputs
                by = (top * 3 + left) * inputs * outputs
                for k in range(0, outputs, VECTORS * VECTOR_BYTES // x.itemsize):
                    add_tile(  # type: ignore[call-arg]  # numba passes the first one
                        (out, to + k, to_next * outputs),
                        (x, of, to_next * inputs, width * inputs, 1),
                        (weights, by + k, 3 * inputs * outputs, outputs),
                        (rows, columns * inputs),
                    )
                for each in range(len(summands)):
                    out[n : n + TILE_ROWS, row, column] += summands[each, row, column]


@compiled
def pull_weights(items, by_weights, by_out, x):
    """Adds the gradient of the weights of each four inputs, over all samples."""
    samples, height, width, inputs = x.shape
    outputs = by_out.shape[3]
    band = max(1, BAND_BYTES // (width * max(inputs, outputs) * x.itemsize))
    for n in range(samples):
        for first in range(0, height, band):
            for tap in range(9):
                down, right = tap // 3 - 1, tap % 3 - 1
                top, bottom = max(first, -down), min(first + band, height, height - down)
                left, end = max(0, -right), min(width, width - right)
                by = ((n * height + top) * width + left) * outputs
                of = ((n * height + top + down) * width + left + right) * inputs
                for i in range(items[0] * TILE_ROWS, items[1] * TILE_ROWS, TILE_ROWS):
                    for k in range(0, outputs, VECTORS * VECTOR_BYTES // x.itemsize):
                        add_tile(  # type: ignore[call-arg]
                            (by_weights, (tap * inputs + i) * outputs + k, outputs),
                            (x, of + i, 1, width * inputs, inputs),
                            (by_out, by + k, width * outputs, outputs),
                            (bottom - top, end - left),
                        )


@compiled_part
def _taps(place, size):
    """The first of the three taps that lie within the image, and their number."""
    first = max(0, 1 - place)
    return first, min(3, size + 1 - place) - first
