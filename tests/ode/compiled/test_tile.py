"""Tests of tiles of a matrix product."""

import numpy as np
import pytest

from nodebench.ode.compiled.decorators import compiled
from nodebench.ode.compiled.tile import add_tile, set_tile, tile_rows
from nodebench.ode.compiled.tile_size import ROW_BYTES, TILE_ROWS


@compiled
def largest_tile(rows):
    return tile_rows(rows)


@compiled
def multiply(out, start, left, right, most_rows):
    """out += left right for as many columns as a tile has, or out = start + left right."""
    rows, inputs = left.shape
    row = 0
    while row < rows:
        count = min(most_rows, tile_rows(rows - row))
        to, of = (out, row * out.shape[1], out.shape[1]), (left, row * inputs, inputs, 0, 1)
        by = right, 0, 0, out.shape[1]
        if len(start):
            set_tile(count, to, (start, row, 1), of, by, (1, inputs))
        else:
            add_tile(count, to, of, by, (1, inputs))
        row += count


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("starts", [True, False])
def test_sums_have_the_same_bits_in_tiles_of_any_size(dtype, starts):
    rng, rows, inputs = np.random.default_rng(0), 5 * TILE_ROWS, 37
    left = rng.normal(size=(rows, inputs)).astype(dtype)
    right = rng.normal(size=(inputs, ROW_BYTES // np.dtype(dtype).itemsize)).astype(dtype)
    start = rng.normal(size=rows if starts else 0).astype(dtype)
    first = rng.normal(size=(rows, right.shape[1])).astype(dtype)
    small, large = first.copy(), first.copy()
    multiply(small, start, left, right, TILE_ROWS)
    multiply(large, start, left, right, rows)
    assert small.tobytes() == large.tobytes()
    exact = (start[:, None] if starts else first) + left.astype(float) @ right
    assert np.abs(large - exact).max() < 1e-4


def test_a_tile_never_has_more_rows_than_remain():
    largest = largest_tile(1000)
    assert largest in (TILE_ROWS, 2 * TILE_ROWS)
    assert [largest_tile(rows) for rows in (1, TILE_ROWS)] == [TILE_ROWS] * 2
    assert largest_tile(2 * TILE_ROWS - 1) == TILE_ROWS
