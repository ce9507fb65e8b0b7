"""The size of a tile of a matrix product, for code that does not import numba."""

TILE_ROWS = 4
"""The rows of the smallest tile."""

ROW_BYTES = 64
"""The size of a tile's row, whose values are adjacent in memory."""
