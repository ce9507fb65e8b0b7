"""The size of a tile of a matrix product, for code that does not import numba."""

TILE_ROWS = 4
"""The rows of a tile."""

VECTORS = 2
"""The vectors of each row."""

VECTOR_BYTES = 32
"""An AVX2 vector register; 16 of them hold a 4 x 2 tile, a row of `right` and a factor."""

ROW_BYTES = VECTORS * VECTOR_BYTES
"""The size of a tile's row, whose values are adjacent in memory."""
