"""Runge-Kutta solves of dense layers, and their gradients, compiled for the CPU by numba.

A solve is the loop that it looks like, with no call of torch in it: of small layers, calls take
longer than the arithmetic. An item is one seed and a block of its samples: items go through a solve
independently of each other, unless an adaptive method chooses a step for all of them.

The values of all layers at some evaluations, and their gradients, are [units, evaluations, BLOCK].
A layer's rows start at `starts[layer]`; those of its output are those of the next layer. Units are
padded to whole `LANES` by weights of zero, so that loops have a known length and are vectorised.

All is in one file, and arrays are passed whole with the indices of what is meant. Numba compiles a
function again only when its own file has changed, whatever it calls; and views of arrays cost time,
most of all while compiling.
"""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload

BLOCK = 64
"""Samples in a block: a layer of a hundred units fits the first cache."""

LANES = 4
"""Units that a product takes at once."""

START = np.int64(0)
"""The first column, as a number that numba does not take for a constant to compile anew for."""

GROUP = 4
"""Evaluations, at least, whose products for weight gradients are taken together."""

RELU, LEAKY_RELU, SIGMOID, TANH = range(4)

LEAK = 0.01
"""The slope of leaky ReLU below zero, torch's default."""

Network = namedtuple("Network", "weights transposed biases starts places kind")
"""Dense layers. The parameters of all layers are rows, one for each seed: weights and transposed
weights start at `places[layer]`, a layer's bias at `starts[layer + 1]`; `kind` is the activation
between layers."""

# Sums may be taken in any order and products contracted; what is not finite stays so.
compiled: Any = numba.njit(
    cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "reassoc"}
)


@compiled
def multiply(out, row, at, weights, seed, place, outputs, inputs, x, x_row, x_at):
    """out += W x, of one evaluation: four rows of W by four units of x at a time."""
    for i in range(0, outputs, 4):
        for k in range(0, inputs, 4):
            p = place + i * inputs + k
            a0, a1, a2, a3 = (
                weights[seed, p], weights[seed, p + 1], weights[seed, p + 2], weights[seed, p + 3]
            )  # fmt: skip
            p += inputs
            b0, b1, b2, b3 = (
                weights[seed, p], weights[seed, p + 1], weights[seed, p + 2], weights[seed, p + 3]
            )  # fmt: skip
            p += inputs
            c0, c1, c2, c3 = (
                weights[seed, p], weights[seed, p + 1], weights[seed, p + 2], weights[seed, p + 3]
            )  # fmt: skip
            p += inputs
            d0, d1, d2, d3 = (
                weights[seed, p], weights[seed, p + 1], weights[seed, p + 2], weights[seed, p + 3]
            )  # fmt: skip
            r, s = row + i, x_row + k
            for j in range(BLOCK):
                x0, x1 = x[s, x_at, j], x[s + 1, x_at, j]
                x2, x3 = x[s + 2, x_at, j], x[s + 3, x_at, j]
                out[r, at, j] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                out[r + 1, at, j] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                out[r + 2, at, j] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                out[r + 3, at, j] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3


@compiled
def add_outer(by_weights, seed, block, place, g, row, x, x_row, outputs, inputs, columns):
    """dL/dW += g x', over so many columns: four rows of g by two of x at a time."""
    zero = g.dtype.type(0)
    for i in range(row, row + outputs, 4):
        for k in range(x_row, x_row + inputs, 2):
            a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = zero
            for j in range(columns):
                x0, x1 = x[k, j], x[k + 1, j]
                a0 += g[i, j] * x0
                a1 += g[i, j] * x1
                b0 += g[i + 1, j] * x0
                b1 += g[i + 1, j] * x1
                c0 += g[i + 2, j] * x0
                c1 += g[i + 2, j] * x1
                d0 += g[i + 3, j] * x0
                d1 += g[i + 3, j] * x1
            p = place + (i - row) * inputs + k - x_row
            by_weights[seed, block, p] += a0
            by_weights[seed, block, p + 1] += a1
            by_weights[seed, block, p + inputs] += b0
            by_weights[seed, block, p + inputs + 1] += b1
            by_weights[seed, block, p + 2 * inputs] += c0
            by_weights[seed, block, p + 2 * inputs + 1] += c1
            by_weights[seed, block, p + 3 * inputs] += d0
            by_weights[seed, block, p + 3 * inputs + 1] += d1


ONE, TWO, HALF = np.float32(1), np.float32(2), np.float32(0.5)
LARGEST = np.float32(87)  # exp of it is near float32's largest number
LOG2_E = np.float32(1 / math.log(2))
LN_2_HIGH = np.float32(0.693359375)  # whose product with a small integer is exact
LN_2_LOW = np.float32(math.log(2) - 0.693359375)
F2, F3, F4, F5, F6, F7 = (np.float32(1 / math.factorial(k)) for k in range(2, 8))


@compiled
def expm1(x):
    """exp(x) - 1 in float32, to 2 units in the last place, in a form that loops vectorise.

    With x = n ln 2 + r, |r| <= ln(2)/2, it is 2^n (exp(r) - 1) + 2^n - 1, by exp's series.
    """
    x = LARGEST if x > LARGEST else x  # in this order nan stays
    x = -LARGEST if x < -LARGEST else x
    n = np.floor(x * LOG2_E + HALF)
    r = x - n * LN_2_HIGH - n * LN_2_LOW
    series = r + r * r * (F2 + r * (F3 + r * (F4 + r * (F5 + r * (F6 + r * F7)))))
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return power * series + (power - ONE)


def sigmoid(x):
    """1 / (1 + exp(-x)), for compiled code."""
    raise NotImplementedError


def tanh(x):
    """The hyperbolic tangent, for compiled code."""
    raise NotImplementedError


@overload(sigmoid)
def _sigmoid(x):
    if x == types.float32:
        return lambda x: ONE / (TWO + expm1(-x))
    return lambda x: 1 / (1 + math.exp(-x))


@overload(tanh)
def _tanh(x):
    def by_expm1(x):
        e = expm1(x + x)
        return e / (e + TWO)

    return by_expm1 if x == types.float32 else lambda x: math.tanh(x)


@compiled
def activate(out, at, x, row, units, kind):
    """out = the activation of x [units, 1, BLOCK]: two arrays, so that loops are vectorised."""
    zero, leak = x.dtype.type(0), x.dtype.type(LEAK)
    for i in range(units):
        r = row + i
        if kind == RELU:
            for j in range(BLOCK):
                out[r, at, j] = zero if x[i, 0, j] < zero else x[i, 0, j]
        elif kind == LEAKY_RELU:
            for j in range(BLOCK):
                out[r, at, j] = leak * x[i, 0, j] if x[i, 0, j] < zero else x[i, 0, j]
        elif kind == SIGMOID:
            for j in range(BLOCK):
                out[r, at, j] = sigmoid(x[i, 0, j])
        else:
            for j in range(BLOCK):
                out[r, at, j] = tanh(x[i, 0, j])


@compiled
def pull_activation(g, x, at, row, units, kind):
    """G times the activation's derivative, in place, from its output x."""
    zero, one, leak = x.dtype.type(0), x.dtype.type(1), x.dtype.type(LEAK)
    for i in range(row, row + units):
        if kind == RELU:
            for j in range(BLOCK):
                g[i, at, j] = g[i, at, j] if x[i, at, j] > zero else zero
        elif kind == LEAKY_RELU:
            for j in range(BLOCK):
                g[i, at, j] *= one if x[i, at, j] > zero else leak
        elif kind == SIGMOID:
            for j in range(BLOCK):
                g[i, at, j] *= x[i, at, j] * (one - x[i, at, j])
        else:
            for j in range(BLOCK):
                g[i, at, j] *= one - x[i, at, j] * x[i, at, j]


@compiled
def evaluate(network, seed, values, at, raw):
    """dy/dt in the rows of the last output, from a state in those of the first layer."""
    starts = network.starts
    layers = len(starts) - 2
    for layer in range(layers):
        row, inputs = starts[layer], starts[layer + 1] - starts[layer]
        outputs = starts[layer + 2] - starts[layer + 1]
        for i in range(outputs):
            bias = network.biases[seed, starts[layer + 1] + i]
            for j in range(BLOCK):
                raw[i, 0, j] = bias
        place = network.places[layer]
        multiply(raw, START, START, network.weights, seed, place, outputs, inputs, values, row, at)
        if layer < layers - 1:
            activate(values, at, raw, starts[layer + 1], outputs, network.kind)
        else:
            for i in range(outputs):
                for j in range(BLOCK):
                    values[starts[layers] + i, at, j] = raw[i, 0, j]


@compiled
def pull_evaluation(network, seed, gradients, values, at):
    """dL/dx in the rows of the first layer, from dL/dslope in those of the last output."""
    starts = network.starts
    zero = values.dtype.type(0)
    for layer in range(len(starts) - 3, -1, -1):
        row, inputs = starts[layer], starts[layer + 1] - starts[layer]
        outputs = starts[layer + 2] - starts[layer + 1]
        for i in range(row, row + inputs):
            for j in range(BLOCK):
                gradients[i, at, j] = zero
        above, place = starts[layer + 1], network.places[layer]
        multiply(
            gradients, row, at, network.transposed, seed, place, inputs, outputs, gradients, above, at
        )
        if layer:
            pull_activation(gradients, values, at, row, inputs, network.kind)


@compiled
def add_outers(by_weights, by_biases, seed, block, network, gradients, values, count):
    """Adds the gradients of all parameters, from the first `count` evaluations."""
    starts, columns = network.starts, count * BLOCK
    g, x = gradients.reshape(len(gradients), -1), values.reshape(len(values), -1)
    for layer in range(len(starts) - 2):
        row, inputs = starts[layer + 1], starts[layer + 1] - starts[layer]
        outputs, place = starts[layer + 2] - row, network.places[layer]
        add_outer(by_weights, seed, block, place, g, row, x, starts[layer], outputs, inputs, columns)
    for i in range(starts[1], starts[-1]):
        total = g.dtype.type(0)
        for j in range(columns):
            total += g[i, j]
        by_biases[seed, block, i] += total


@compiled
def move(out, at, y, seed, block, step, h, weights, slopes, row, slope_at, count):
    """out = y + h sum_i weights_i slopes_i, of `count` slopes, which are evaluations' outputs."""
    units = y.shape[3]
    for i in range(units):
        for j in range(BLOCK):
            out[i, at, j] = y[seed, block, step, i, j]
    for stage in range(count):
        scale = y.dtype.type(h * weights[stage])
        if scale != 0:
            for i in range(units):
                for j in range(BLOCK):
                    out[i, at, j] += scale * slopes[row + i, slope_at + stage, j]


@compiled
def take_stages(network, seed, values, at, raw, y, block, step, h, a, first):
    """The evaluations of a step from the state before it, in columns from `at`."""
    output = network.starts[-2]
    for stage in range(first, len(a)):
        move(raw, START, y, seed, block, step, h, a[stage], values, output, at, stage)
        for i in range(y.shape[3]):
            for j in range(BLOCK):
                values[i, at + stage, j] = raw[i, 0, j]
        evaluate(network, seed, values, at + stage, raw)


@compiled
def solve_fixed(items, y, network, steps, a, b):
    """Fills y [seeds, blocks, steps + 1, units, BLOCK] from the states at the first time.

    The items are those from the one number to the other.
    """
    starts = network.starts
    values = np.zeros((starts[-1], len(b), BLOCK), y.dtype)
    raw = np.zeros((starts[-1], 1, BLOCK), y.dtype)
    for item in range(items[0], items[1]):
        seed, block = item // y.shape[1], item % y.shape[1]
        for step in range(len(steps)):
            h = steps[step]
            take_stages(network, seed, values, START, raw, y, block, step, h, a, START)
            move(raw, START, y, seed, block, step, h, b, values, starts[-2], START, len(b))
            for i in range(y.shape[3]):
                for j in range(BLOCK):
                    y[seed, block, step + 1, i, j] = raw[i, 0, j]


@compiled
def pull_step(network, seed, gradients, values, at, by_y, by_slope, h, a, b, first):
    """dL/d(what a step took), in place of dL/d(what it left): its state, and its last slope."""
    stages, units, output = len(b), len(by_y), network.starts[-2]
    for stage in range(stages - 1, -1, -1):
        scale = by_y.dtype.type(h * b[stage])
        for i in range(units):
            for j in range(BLOCK):
                gradients[output + i, at + stage, j] = scale * by_y[i, j]
        if first and stage == stages - 1:
            for i in range(units):
                for j in range(BLOCK):
                    gradients[output + i, at + stage, j] += by_slope[i, j]
        for later in range(stage + 1, stages):
            scale = by_y.dtype.type(h * a[later, stage])
            if scale != 0:
                for i in range(units):
                    for j in range(BLOCK):
                        g = gradients[i, at + later, j]
                        gradients[output + i, at + stage, j] += scale * g
        if stage >= first:
            pull_evaluation(network, seed, gradients, values, at + stage)
    for i in range(units):
        for stage in range(first, stages):
            for j in range(BLOCK):
                by_y[i, j] += gradients[i, at + stage, j]
        if first:  # belongs to the evaluation before, and not to this column
            for j in range(BLOCK):
                by_slope[i, j] = gradients[output + i, at, j]
                gradients[output + i, at, j] = 0


@compiled
def pull_solve(items, by, by_outputs, outputs, y, slope, network, steps, a, b, first):
    """Adds dL/dy(0), dL/dW and dL/db of the items of a range to `by`, three arrays.

    Layers are evaluated again from the state at the start of each step. `outputs` has of
    each step the output time that it reaches, or -1. `first` is the first stage that a step
    evaluates: 0, or 1 of embedded methods, whose step takes the slope at its start from the step
    before: it is in `slope`, of the shape of y.

    Shapes: dL/dy(0) [seeds, blocks, units, BLOCK], dL/dW and dL/db [seeds, blocks, ...],
    by_outputs [times, seeds, blocks, units, BLOCK], y [seeds, blocks, steps + 1, units, BLOCK].
    """
    by_start, by_weights, by_biases = by
    starts, stages, units = network.starts, len(b), y.shape[3]
    output = starts[-2]
    together = max(1, GROUP // stages)
    values = np.zeros((starts[-1], together * stages, BLOCK), y.dtype)
    gradients = np.zeros((starts[-1], together * stages, BLOCK), y.dtype)
    raw = np.zeros((starts[-1], 1, BLOCK), y.dtype)
    by_y, by_slope = np.zeros((units, BLOCK), y.dtype), np.zeros((units, BLOCK), y.dtype)
    for item in range(items[0], items[1]):
        seed, block = item // y.shape[1], item % y.shape[1]
        by_y[:] = 0
        by_slope[:] = 0
        end = len(steps)
        while end > 0:
            start = max(0, end - together)
            for step in range(start, end):
                at = (step - start) * stages
                if first:
                    for i in range(units):
                        for j in range(BLOCK):
                            values[output + i, at, j] = slope[seed, block, step, i, j]
                take_stages(network, seed, values, at, raw, y, block, step, steps[step], a, first)
            for step in range(end - 1, start - 1, -1):
                if outputs[step] >= 0:
                    for i in range(units):
                        for j in range(BLOCK):
                            by_y[i, j] += by_outputs[outputs[step], seed, block, i, j]
                at = (step - start) * stages
                h = steps[step]
                pull_step(network, seed, gradients, values, at, by_y, by_slope, h, a, b, first)
            count = (end - start) * stages
            add_outers(by_weights, by_biases, seed, block, network, gradients, values, count)
            end = start
        if first:
            pull_first_slope(
                network, seed, block, gradients, values, raw, y, by_y, by_slope, by_weights, by_biases
            )
        for i in range(units):
            for j in range(BLOCK):
                by_start[seed, block, i, j] = by_y[i, j]


@compiled
def pull_first_slope(
    network, seed, block, gradients, values, raw, y, by_y, by_slope, by_weights, by_biases
):
    """Brings back the gradient of f(y(0))."""
    units, output = len(by_y), network.starts[-2]
    for i in range(units):
        for j in range(BLOCK):
            values[i, 0, j] = y[seed, block, 0, i, j]
            gradients[output + i, 0, j] = by_slope[i, j]
    evaluate(network, seed, values, START, raw)
    pull_evaluation(network, seed, gradients, values, START)
    add_outers(by_weights, by_biases, seed, block, network, gradients, values, START + 1)
    for i in range(units):
        for j in range(BLOCK):
            by_y[i, j] += gradients[i, 0, j]
    gradients[:, 0] = 0
