"""Step size control of embedded Runge-Kutta methods, compiled for the CPU by numba."""

from __future__ import annotations

import math

import numpy as np

from nodebench.ode.adaptive.step_size import SMALLEST_ERROR
from nodebench.ode.compiled.decorators import compiled, compiled_part
from nodebench.ode.dense.activation_kernels import BLOCK
from nodebench.ode.dense.solve_kernels import START, copy, copy_back, evaluate_field, take_step

TIME, SIZE, REMEMBERED, REJECTED = range(4)
"""The places of a solve's clock: the time, the size of the next step, the remembered error, and the
error of the last rejected step."""


@compiled
def first_step(control, at, network):
    """The size of the first step, as in `step_size.first_size`; fills the first slope."""
    y, slope = at
    output = network.starts[-2]
    values = np.zeros((network.rows, 1, BLOCK), y.dtype)
    raw, change = np.zeros_like(values), np.zeros_like(y)
    for block in range(len(y)):
        copy(values, y[block], START, START)
        evaluate_field(network, values, START, raw)
        copy_back(slope[block], values, output, START)
    d0, d1 = scaled_size(y, y, control), scaled_size(slope, y, control)
    h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
    h = y.dtype.type(control.sign * h0)
    for block in range(len(y)):
        for i in range(y.shape[1]):
            for j in range(BLOCK):
                values[i, 0, j] = y[block, i, j] + h * slope[block, i, j]
        evaluate_field(network, values, START, raw)
        for i in range(y.shape[1]):
            for j in range(BLOCK):
                change[block, i, j] = values[output + i, 0, j] - slope[block, i, j]
    d2 = scaled_size(change, y, control) / h0
    if d1 <= 1e-15 and d2 <= 1e-15:
        return min(100 * h0, max(1e-6, h0 * 1e-3))
    return min(100 * h0, (0.01 / max(d1, d2)) ** (1 / control.order))


@compiled_part
def scaled_size(x, y, control):
    """The root mean square of x relative to the tolerance at y."""
    total = 0.0
    for block in range(len(x)):
        for i in range(control.dim):
            for j in range(min(BLOCK, control.batch - block * BLOCK)):
                share = x[block, i, j] / (control.atol + control.rtol * abs(y[block, i, j]))
                total += share * share
    return math.sqrt(total / (control.batch * control.dim))


@compiled
def try_steps(clock, end, control, at, layers, sizes, network, scheme):
    """Tries at most as many steps as `sizes` has room for, until `end`.

    Returns the numbers of accepted and of tried steps, and whether the solve is stuck.
    """
    y, slope = at
    after, raw = np.zeros_like(y), np.zeros((layers.shape[2], 1, BLOCK), y.dtype)
    output, last = network.starts[-2], len(scheme.b) - 1
    accepted = 0
    for tried in range(len(sizes)):
        t, size = clock[TIME], clock[SIZE]
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
            take_step(network, values, START, raw, y[block], control.sign * h, scheme)
            copy_back(after[block], raw, START, START)
            samples = min(BLOCK, control.batch - block * BLOCK)
            total += squared_error(
                values, y[block], after[block], h, network, scheme, control, samples
            )
        error = math.sqrt(total / (control.batch * control.dim))
        clock[SIZE] = h * factor(error, clock[REMEMBERED], control)
        if not error <= 1:
            clock[REJECTED] = error
        if t + control.sign * h == t or not math.isfinite(size):
            return accepted, tried + 1, True
        if error <= 1:
            for block in range(len(y)):
                values = layers[block, accepted % layers.shape[1]]
                for i in range(y.shape[1]):
                    for j in range(BLOCK):
                        y[block, i, j] = after[block, i, j]
                copy_back(slope[block], values, output, last)
            sizes[accepted] = control.sign * h
            accepted += 1
            clock[TIME] = t + control.sign * h if size < left else end
            if control.proportional > 0:
                clock[REMEMBERED] = max(error, SMALLEST_ERROR)
    return accepted, len(sizes), False


@compiled_part
def squared_error(values, y, after, h, network, scheme, control, samples):
    """The sum of a step's squared errors relative to the tolerance, over a block's samples."""
    output, total = network.starts[-2], 0.0
    for i in range(control.dim):
        for j in range(samples):
            error = 0.0
            for stage in range(len(scheme.e)):
                error += scheme.e[stage] * values[output + i, stage, j]
            share = h * error / (control.atol + control.rtol * max(abs(y[i, j]), abs(after[i, j])))
            total += share * share
    return total


@compiled_part
def factor(error, before, control):
    """The factor from one step size to the next, as in `Controller.factor`."""
    least = control.least
    if not math.isfinite(error):
        return least
    if error <= 1:
        found = control.safety * error ** (
            -(control.integral + control.proportional) / control.order
        )
        found *= before ** (control.proportional / control.order)
    else:
        found = control.safety * error ** (-1 / control.order)
    if control.proportional == 0 and error < 1:
        least = 1.0
    return min(max(found, least), control.most)
