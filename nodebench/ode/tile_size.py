"""The size of a tile of a matrix product, for code that does without numba."""

TILE_ROWS = 4
"""The rows of a tile."""

VECTORS = 2
"""The vectors of each row."""

VECTOR_BYTES = 32
"""A vector register of AVX2, whose 16 hold a tile of 4 by 2, a row of `right` and a factor."""

ROW_BYTES = VECTORS * VECTOR_BYTES
"""The values of a row of a tile, side by side in memory."""
