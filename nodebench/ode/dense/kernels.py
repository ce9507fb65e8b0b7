"""Runge-Kutta solves of dense layers, and their gradients, compiled for the CPU by numba.

A solve is the loop that it looks like, with no call of torch in it: of small layers, calls take
longer than the arithmetic. An item is one seed and a block of its samples: items go through a solve
independently of each other, unless an adaptive method chooses a step for all of them.

The values of all layers at some evaluations, and their gradients, are [units, evaluations, BLOCK].
A layer's rows start at `starts[layer]`; those of its output are those of the next layer. Units are
padded to whole `LANES` by weights of zero, so that loops have a known length and are vectorised.

Arrays are passed whole with the indices of what is meant: views cost time, most of all to compile.
Of a solve, `kept` has the values of all layers, [seeds, blocks, groups, rows, columns, BLOCK]: a
group is some steps, a column for each of their stages. A solve without a gradient has one group,
which each takes in turn.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from nodebench.ode.dense.activations import BLOCK, activate, compiled, pull_activation

LANES = 4
"""Units that a product takes at once."""

START = np.int64(0)
"""The first column, as a number that numba does not take for a constant to compile anew for."""

GROUP = 4
"""Evaluations, at least, whose products for weight gradients are taken together."""

Network = namedtuple("Network", "weights transposed biases starts places kind")
"""Dense layers. The parameters of all layers are rows, one for each seed: weights and transposed
weights start at `places[layer]`, a layer's bias at `starts[layer + 1]`; `kind` is the activation
between layers."""


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
def move(out, y, h, weights, slopes, row, at, count):
    """out = y + h sum_i weights_i slopes_i, of `count` slopes, which are evaluations' outputs."""
    units = len(y)
    for i in range(units):
        for j in range(BLOCK):
            out[i, 0, j] = y[i, j]
    for stage in range(count):
        scale = y.dtype.type(h * weights[stage])
        if scale != 0:
            for i in range(units):
                for j in range(BLOCK):
                    out[i, 0, j] += scale * slopes[row + i, at + stage, j]


@compiled
def take_step(network, seed, values, at, raw, y, h, a, b, first):
    """The evaluations of a step from y, in columns from `at`; the state after it is in `raw`."""
    units, output = len(y), network.starts[-2]
    for stage in range(first, len(b)):
        move(raw, y, h, a[stage], values, output, at, stage)
        for i in range(units):
            for j in range(BLOCK):
                values[i, at + stage, j] = raw[i, 0, j]
        evaluate(network, seed, values, at + stage, raw)
    move(raw, y, h, b, values, output, at, len(b))


@compiled
def solve_fixed(items, y, kept, network, steps, a, b):
    """Fills y [seeds, blocks, steps + 1, units, BLOCK] from the states at the first time.

    An item is a block of a seed; those from the one number to the other are solved.
    """
    together = kept.shape[4] // len(b)
    raw = np.zeros((kept.shape[3], 1, BLOCK), y.dtype)
    for item in range(items[0], items[1]):
        seed, block = item // y.shape[1], item % y.shape[1]
        for step in range(len(steps)):
            values = kept[seed, block, step // together % kept.shape[2]]
            at = step % together * len(b)
            before, after = y[seed, block, step], y[seed, block, step + 1]
            take_step(network, seed, values, at, raw, before, steps[step], a, b, START)
            for i in range(len(after)):
                for j in range(BLOCK):
                    after[i, j] = raw[i, 0, j]


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
        if first:  # of the evaluation before, and not of this column
            for j in range(BLOCK):
                by_slope[i, j] = gradients[output + i, at, j]
                gradients[output + i, at, j] = 0


@compiled
def pull_solve(items, by, by_outputs, outputs, kept, network, steps, a, b, first):
    """Brings dL/dy from output times back to the first one.

    `by` has dL/dy and dL/dslope before the first step, at last; and dL/dW and dL/db, to which those
    of these steps are added. `outputs` has of each step the output time that it reaches, or -1.
    `first` is the first stage that a step evaluates: 0, or 1 of embedded methods, whose step takes
    the slope at its start from the step before.

    Shapes: dL/dy and dL/dslope [seeds, blocks, units, BLOCK], dL/dW and dL/db [seeds, blocks, ...],
    by_outputs [times, seeds, blocks, units, BLOCK].
    """
    by_state, by_first, by_weights, by_biases = by
    stages = len(b)
    together = kept.shape[4] // stages
    gradients = np.zeros((kept.shape[3], kept.shape[4], BLOCK), kept.dtype)
    for item in range(items[0], items[1]):
        seed, block = item // kept.shape[1], item % kept.shape[1]
        by_y, by_slope = by_state[seed, block], by_first[seed, block]
        for step in range(len(steps) - 1, -1, -1):
            values = kept[seed, block, step // together]
            if outputs[step] >= 0:
                by_output = by_outputs[outputs[step], seed, block]
                for i in range(len(by_y)):
                    for j in range(BLOCK):
                        by_y[i, j] += by_output[i, j]
            at = step % together * stages
            pull_step(network, seed, gradients, values, at, by_y, by_slope, steps[step], a, b, first)
            if at == 0:  # all of the group
                count = (min(together, len(steps) - step)) * stages
                add_outers(by_weights, by_biases, seed, block, network, gradients, values, count)


@compiled
def pull_first_slope(by, y, network):
    """Brings the gradient of f(y(0)) back to y(0), of embedded methods.

    Shapes: y [seeds, blocks, units, BLOCK]; `by` as in `pull_solve`.
    """
    by_state, by_first, by_weights, by_biases = by
    units, output = y.shape[2], network.starts[-2]
    values = np.zeros((network.starts[-1], 1, BLOCK), y.dtype)
    gradients, raw = np.zeros_like(values), np.zeros_like(values)
    for seed in range(y.shape[0]):
        for block in range(y.shape[1]):
            for i in range(units):
                for j in range(BLOCK):
                    values[i, 0, j] = y[seed, block, i, j]
                    gradients[output + i, 0, j] = by_first[seed, block, i, j]
            evaluate(network, seed, values, START, raw)
            pull_evaluation(network, seed, gradients, values, START)
            add_outers(by_weights, by_biases, seed, block, network, gradients, values, START + 1)
            for i in range(units):
                for j in range(BLOCK):
                    by_state[seed, block, i, j] += gradients[i, 0, j]
