"""Sums of a solver's steps over images, compiled for the CPU by numba."""

from __future__ import annotations

from nodebench.ode.compiled.decorators import compiled


@compiled
def add_multiple(items, out, y, slope, factor):
    """Fills samples of an array [samples, height, width, channels] with y + factor slope."""
    _, height, width, channels = y.shape
    for n in range(items[0], items[1]):
        for row in range(height):
            for column in range(width):
                for k in range(channels):
                    out[n, row, column, k] = (
                        y[n, row, column, k] + factor * slope[n, row, column, k]
                    )
