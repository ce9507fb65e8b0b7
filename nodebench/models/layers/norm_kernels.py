"""Norms of images and their gradients, compiled for the CPU by numba.

On channels-last images, torch's own group norm goes through the few channels of a group one by one.
It takes six times as long over 64 channels of 6 x 6 in 32 groups, and its backward pass takes
twenty times as long over 16 channels of 32 x 32 in 16 groups.

Shapes: x [samples, height, width, channels]; scale and shift [channels]; statistics, which are the
mean and the inverse standard deviation of each group, [2, samples, groups].

In the loops over a group's channels, numba cannot tell that c is not negative. The compiled loops
therefore check whether one array lies within `channels` values behind another, and if so round
differently. Behind arrays made by `_apart` there are none, so that results do not depend on what
else is in memory. (Loops from 0 would not check, but would change the bits of all earlier results.)
"""

from __future__ import annotations

import math

import numpy as np

from nodebench.ode.compiled.decorators import compiled, compiled_part


@compiled
def normalize(items, out, x, scale, shift, statistics, eps, least):
    """Fills the output, clamped from below to `least`, and the statistics."""
    samples, height, width, channels = x.shape
    positions = height * width
    flat = (samples, positions, channels)
    out, x = out.reshape(flat), x.reshape(flat)
    means, inverses = statistics[0], statistics[1]
    groups = means.shape[1]
    size, zero, least = channels // groups, x.dtype.type(0), x.dtype.type(least)
    count = x.dtype.type(positions * size)
    scale, shift, slope, start = _apart(scale), _apart(shift), _apart(scale), _apart(scale)
    for n in range(items[0], items[1]):
        for c in range(channels):
            start[c] = slope[c] = zero
        for p in range(positions):
            for c in range(channels):
                start[c] += x[n, p, c]
        for g in range(groups):
            total = zero
            for c in range(g * size, (g + 1) * size):
                total += start[c]
            means[n, g] = total / count
            for c in range(g * size, (g + 1) * size):
                start[c] = means[n, g]
        for p in range(positions):
            for c in range(channels):
                apart = x[n, p, c] - start[c]
                slope[c] += apart * apart
        for g in range(groups):
            total = zero
            for c in range(g * size, (g + 1) * size):
                total += slope[c]
            inverses[n, g] = 1 / math.sqrt(total / count + eps)
            for c in range(g * size, (g + 1) * size):
                slope[c] = scale[c] * inverses[n, g]
                start[c] = shift[c] - means[n, g] * slope[c]
        for p in range(positions):
            for c in range(channels):
                value = x[n, p, c] * slope[c] + start[c]
                out[n, p, c] = least if value < least else value


@compiled
def scale_channels(items, out, x, inverses, means, scale, shift, least):
    """Fills the output, clamped from below to `least`, using statistics [channels]."""
    _, height, width, channels = x.shape
    slope, start, least = scale * inverses, np.empty(channels, x.dtype), x.dtype.type(least)
    for c in range(channels):
        start[c] = shift[c] - means[c] * slope[c]
    for n in range(items[0], items[1]):
        for row in range(height):
            for column in range(width):
                for c in range(channels):
                    value = x[n, row, column, c] * slope[c] + start[c]
                    out[n, row, column, c] = least if value < least else value


@compiled
def pull_normalize(items, by_x, by_parameters, by_out, x, scale, statistics, threshold):
    """Fills dL/dx, and each sample's dL/dscale and dL/dshift [2, samples, channels].

    dL/dx is 0 where x is at most the threshold; a threshold of NaN applies nowhere.

    With r = (x - mean) / deviation, dL/dx = (scale g - mean(scale g) - r mean(scale g r)) /
    deviation, where g = dL/dout: a linear function of g and x in each channel.
    """
    samples, height, width, channels = x.shape
    positions = height * width
    flat = (samples, positions, channels)
    by_x, by_out, x = by_x.reshape(flat), by_out.reshape(flat), x.reshape(flat)
    means, inverses = statistics[0], statistics[1]
    by_scale, by_shift = by_parameters[0], by_parameters[1]
    groups = means.shape[1]
    size, zero, threshold = channels // groups, x.dtype.type(0), x.dtype.type(threshold)
    count = x.dtype.type(positions * size)
    scale, of_g, of_x, constant = _apart(scale), _apart(scale), _apart(scale), _apart(scale)
    for n in range(items[0], items[1]):
        for c in range(channels):
            by_scale[n, c] = by_shift[n, c] = 0
            of_x[c] = means[n, c // size]
        for p in range(positions):
            for c in range(channels):
                by_shift[n, c] += by_out[n, p, c]
                by_scale[n, c] += by_out[n, p, c] * (x[n, p, c] - of_x[c])
        for g in range(groups):
            inverse, along, sideways = inverses[n, g], zero, zero
            for c in range(g * size, (g + 1) * size):
                by_scale[n, c] *= inverse
                along += scale[c] * by_shift[n, c]
                sideways += scale[c] * by_scale[n, c]
            for c in range(g * size, (g + 1) * size):
                of_g[c] = scale[c] * inverse
                of_x[c] = -sideways / count * inverse * inverse
                constant[c] = -along / count * inverse - of_x[c] * means[n, g]
        for p in range(positions):
            for c in range(channels):
                value = of_g[c] * by_out[n, p, c] + of_x[c] * x[n, p, c] + constant[c]
                by_x[n, p, c] = zero if x[n, p, c] <= threshold else value


@compiled_part
def _apart(values):
    """A copy of values [channels], behind which as many more are reserved."""
    copy = np.empty((2, len(values)), values.dtype)[0]
    copy[:] = values
    return copy
