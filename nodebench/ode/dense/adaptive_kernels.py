"""Step size control of embedded Runge-Kutta methods, compiled for the CPU by numba."""

from __future__ import annotations

import math

import numpy as np

from nodebench.ode.adaptive.step_size import SMALLEST_ERROR
from nodebench.ode.compiled import compiled, compiled_part
from nodebench.ode.dense.activation_kernels import BLOCK
from nodebench.ode.dense.solve_kernels import START, copy, copy_back, evaluate_field, take_step


@compiled
def first_step(way, at, network):
    """The size of the first step, as in `step_size.first_size`; fills the first slope."""
    y, slope = at
    output = network.starts[-2]
    values = np.zeros((network.rows, 1, BLOCK), y.dtype)
    raw, change = np.zeros_like(values), np.zeros_like(y)
    for block in range(len(y)):
        copy(values, y[block], START, START)
        evaluate_field(network, values, START, raw)
        copy_back(slope[block], values, output, START)
    d0, d1 = scaled_size(y, y, way), scaled_size(slope, y, way)
    h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
    h = y.dtype.type(way.sign * h0)
    for block in range(len(y)):
        for i in range(y.shape[1]):
            for j in range(BLOCK):
                values[i, 0, j] = y[block, i, j] + h * slope[block, i, j]
        evaluate_field(network, values, START, raw)
        for i in range(y.shape[1]):
            for j in range(BLOCK):
                change[block, i, j] = values[output + i, 0, j] - slope[block, i, j]
    d2 = scaled_size(change, y, way) / h0
    if d1 <= 1e-15 and d2 <= 1e-15:
        return min(100 * h0, max(1e-6, h0 * 1e-3))
    return min(100 * h0, (0.01 / max(d1, d2)) ** (1 / way.order))


@compiled_part
def scaled_size(x, y, way):
    """The root mean square of x relative to the tolerance at y."""
    total = 0.0
    for block in range(len(x)):
        for i in range(way.dim):
            for j in range(min(BLOCK, way.batch - block * BLOCK)):
                share = x[block, i, j] / (way.atol + way.rtol * abs(y[block, i, j]))
                total += share * share
    return math.sqrt(total / (way.batch * way.dim))


@compiled
def try_steps(clock, end, way, at, layers, sizes, network, scheme):
    """Tries at most as many steps as `sizes` has room for, until `end`.

    Returns the numbers of accepted and of tried steps, and whether the solve is stuck.
    """
    y, slope = at
    after, raw = np.zeros_like(y), np.zeros((layers.shape[2], 1, BLOCK), y.dtype)
    output, last = network.starts[-2], len(scheme.b) - 1
    accepted = 0
    for tried in range(len(sizes)):
        t, size = clock[0], clock[1]
        left = abs(end - t)
        if left == 0:
            return accepted, tried, False
        h = min(size, left)
        total = 0.0
        for block in range(len(y)):
            values = layers[block, accepted % layers.shape[1]]
            for i in range(len(values)):
                for j in range(BLOCK):
                    values[i, 0, j] = 0  # the first slope is not evaluated here
            copy(values, slope[block], output, START)
            take_step(network, values, START, raw, y[block], way.sign * h, scheme)
            copy_back(after[block], raw, START, START)
            samples = min(BLOCK, way.batch - block * BLOCK)
            total += squared_error(values, y[block], after[block], h, network, scheme, way, samples)
        error = math.sqrt(total / (way.batch * way.dim))
        clock[1] = h * factor(error, clock[2], way)
        if not error <= 1:
            clock[3] = error
        if t + way.sign * h == t or not math.isfinite(size):
            return accepted, tried + 1, True
        if error <= 1:
            for block in range(len(y)):
                values = layers[block, accepted % layers.shape[1]]
                for i in range(y.shape[1]):
                    for j in range(BLOCK):
                        y[block, i, j] = after[block, i, j]
                copy_back(slope[block], values, output, last)
            sizes[accepted] = way.sign * h
            accepted += 1
            clock[0] = t + way.sign * h if size < left else end
            if way.proportional > 0:
                clock[2] = max(error, SMALLEST_ERROR)
    return accepted, len(sizes), False


@compiled_part
def squared_error(values, y, after, h, network, scheme, way, samples):
    """The sum of a step's squared errors relative to the tolerance, over a block's samples."""
    output, total = network.starts[-2], 0.0
    for i in range(way.dim):
        for j in range(samples):
            error = 0.0
            for stage in range(len(scheme.e)):
                error += scheme.e[stage] * values[output + i, stage, j]
            share = h * error / (way.atol + way.rtol * max(abs(y[i, j]), abs(after[i, j])))
            total += share * share
    return total


@compiled_part
def factor(error, before, way):
    """The factor from one step size to the next, as in `Controller.factor`."""
    least = way.least
    if not math.isfinite(error):
        return least
    if error <= 1:
        found = way.safety * error ** (-(way.integral + way.proportional) / way.order)
        found *= before ** (way.proportional / way.order)
    else:
        found = way.safety * error ** (-1 / way.order)
    if way.proportional == 0 and error < 1:
        least = 1.0
    return min(max(found, least), way.most)
