"""Runge-Kutta solves of dense layers, and their gradients, compiled for the CPU by numba.

A solve is the loop that it looks like, with no call of torch in it: of small layers, calls take
longer than the arithmetic. An item is one seed and a block of its samples: items go through a solve
independently of each other, unless an adaptive method chooses a step for all of them.

The values of all layers at some evaluations, and their gradients, are [rows, columns, BLOCK]: a row
is a unit and a column an evaluation; after all units come the derivatives of hidden ones, if their
activation's output does not determine these. A layer's units are padded to whole `TILE_ROWS` by
weights of zero, so that loops have a known length and are vectorised. Of a solve, `kept` has all
values, [seeds, blocks, groups, rows, columns, BLOCK]: a group is some steps, a column for each of
their stages, and one more if those are even (`columns_of`). A solve without a gradient has one
group, which each takes in turn.

Arrays are passed whole, with the indices of what is meant: views cost time, most of all to compile.
"""

from __future__ import annotations

import numpy as np

from nodebench.ode.compiled import compiled, compiled_part
from nodebench.ode.dense.activation_kernels import BLOCK, activate, pull_activation
from nodebench.ode.dense.parts import Layers
from nodebench.ode.dense.product_kernels import add_outer, multiply

GROUP = 4
"""Evaluations, at least, whose products for weight gradients are taken together."""

START = np.int64(0)
"""The first column, in a type that numba does not take for a constant to compile anew for."""


@compiled
def of_seed(networks, seed):
    """One seed's network."""
    return Layers(
        networks.weights[seed], networks.transposed[seed], networks.biases[seed],
        networks.starts, networks.places, networks.rows, networks.kind,
    )  # fmt: skip


@compiled_part
def shape_of(network, layer):
    """A layer's outputs and inputs."""
    starts = network.starts
    return starts[layer + 2] - starts[layer + 1], starts[layer + 1] - starts[layer]


@compiled_part
def derivatives_of(network, layer):
    """The first row of the derivatives of a layer's activations, where these are kept."""
    starts = network.starts
    return starts[-1] + starts[layer + 1] - starts[1]


@compiled_part
def evaluate_field(network, values, at, raw):
    """dy/dt in the rows of the last output, from a state in those of the first input.

    `raw` has one column, for a layer before its activation.
    """
    starts = network.starts
    layers = len(starts) - 2
    for layer in range(layers):
        shape = shape_of(network, layer)
        row = starts[layer + 1]
        to, of, bias = (START, START), (starts[layer], at), (network.biases, row, 1)
        multiply(raw, to, bias, network.weights, network.places[layer], shape, values, of)
        if layer < layers - 1:
            derivatives = derivatives_of(network, layer)
            activate(values, at, raw, row, shape[0], network.kind, derivatives)
        else:
            for i in range(shape[0]):
                for j in range(BLOCK):
                    values[row + i, at, j] = raw[i, 0, j]


@compiled_part
def pull_evaluation(network, gradients, values, at):
    """dL/dx in the rows of the first input, from dL/dslope in those of the last output."""
    starts = network.starts
    zero = (np.zeros(1, values.dtype), START, 0)
    for layer in range(len(starts) - 3, -1, -1):
        outputs, inputs = shape_of(network, layer)
        row, place = starts[layer], network.places[layer]
        to, of, shape = (row, at), (starts[layer + 1], at), (inputs, outputs)
        multiply(gradients, to, zero, network.transposed, place, shape, gradients, of)
        if layer:
            derivatives = derivatives_of(network, layer - 1)
            pull_activation(gradients, values, at, row, inputs, network.kind, derivatives)


@compiled_part
def add_outers(by_weights, by_biases, network, gradients, values, count):
    """Adds the gradients of all parameters, from the first `count` evaluations."""
    starts, columns = network.starts, count * BLOCK
    g, x = gradients.reshape(len(gradients), -1), values.reshape(len(values), -1)
    for layer in range(len(starts) - 2):
        row, shape = starts[layer + 1], shape_of(network, layer)
        add_outer(by_weights, network.places[layer], shape, g, row, x, starts[layer], columns)
    for i in range(starts[1], starts[-1]):
        total = g.dtype.type(0)
        for j in range(columns):
            total += g[i, j]
        by_biases[i] += total


@compiled_part
def copy(out, y, row, at):
    """A state or slope into the rows from `row`."""
    for i in range(len(y)):
        for j in range(BLOCK):
            out[row + i, at, j] = y[i, j]


@compiled_part
def copy_back(y, values, row, at):
    """A state or slope from the rows from `row`."""
    for i in range(len(y)):
        for j in range(BLOCK):
            y[i, j] = values[row + i, at, j]


@compiled_part
def move(out, y, h, weights, slopes, to, count):
    """Out = y + h sum_i weights_i slopes_i, of `count` slopes from the row and column `to`."""
    row, at = to
    copy(out, y, START, START)
    for stage in range(count):
        scale = y.dtype.type(h * weights[stage])
        if scale != 0:
            for i in range(len(y)):
                for j in range(BLOCK):
                    out[i, 0, j] += scale * slopes[row + i, at + stage, j]


@compiled_part
def take_step(network, values, at, raw, y, h, scheme):
    """The evaluations of a step from y, in columns from `at`; the state after it is in `raw`."""
    to = (network.starts[-2], at)
    for stage in range(scheme.first, len(scheme.b)):
        move(raw, y, h, scheme.a[stage], values, to, stage)
        for i in range(len(y)):
            for j in range(BLOCK):
                values[i, at + stage, j] = raw[i, 0, j]
        evaluate_field(network, values, at + stage, raw)
    move(raw, y, h, scheme.b, values, to, len(scheme.b))


@compiled
def solve_fixed(items, y, kept, networks, steps, scheme):
    """Fills y [seeds, blocks, steps + 1, units, BLOCK] from the states at the first time.

    An item is a block of a seed; those from the one number to the other are solved.
    """
    stages, together = len(scheme.b), scheme.together
    raw = np.zeros((kept.shape[3], 1, BLOCK), y.dtype)
    for item in range(items[0], items[1]):
        seed, block = item // y.shape[1], item % y.shape[1]
        network = of_seed(networks, seed)
        for step in range(len(steps)):
            values = kept[seed, block, step // together % kept.shape[2]]
            at = step % together * stages
            take_step(network, values, at, raw, y[seed, block, step], steps[step], scheme)
            copy_back(y[seed, block, step + 1], raw, START, START)


@compiled_part
def pull_step(network, gradients, values, at, by, h, scheme):
    """dL/d(what a step took), in place of dL/d(what it left): its state, and its last slope."""
    by_y, by_slope = by
    stages, units, output = len(scheme.b), len(by_y), network.starts[-2]
    for stage in range(stages - 1, -1, -1):
        scale = by_y.dtype.type(h * scheme.b[stage])
        for i in range(units):
            for j in range(BLOCK):
                gradients[output + i, at + stage, j] = scale * by_y[i, j]
        if scheme.first and stage == stages - 1:
            for i in range(units):
                for j in range(BLOCK):
                    gradients[output + i, at + stage, j] += by_slope[i, j]
        for later in range(stage + 1, stages):
            scale = by_y.dtype.type(h * scheme.a[later, stage])
            if scale != 0:
                for i in range(units):
                    for j in range(BLOCK):
                        g = gradients[i, at + later, j]
                        gradients[output + i, at + stage, j] += scale * g
        if stage >= scheme.first:
            pull_evaluation(network, gradients, values, at + stage)
    for i in range(units):
        for stage in range(scheme.first, stages):
            for j in range(BLOCK):
                by_y[i, j] += gradients[i, at + stage, j]
        if scheme.first:  # of the evaluation before, and not of this column
            for j in range(BLOCK):
                by_slope[i, j] = gradients[output + i, at, j]
                gradients[output + i, at, j] = 0


@compiled
def pull_solve(items, by, by_outputs, outputs, kept, networks, steps, scheme):
    """Brings dL/dy from output times back to the first one, and adds dL/dW and dL/db.

    `outputs` has of each step the output time that it reaches, or -1.

    Shapes: by_outputs [times, seeds, blocks, units, BLOCK]; `by` are `LossGradients`.
    """
    stages, together = len(scheme.b), scheme.together
    gradients = np.zeros((kept.shape[3], kept.shape[4], BLOCK), kept.dtype)
    for item in range(items[0], items[1]):
        seed, block = item // kept.shape[1], item % kept.shape[1]
        network = of_seed(networks, seed)
        by_y, by_slope = by.states[seed, block], by.slopes[seed, block]
        by_weights, by_biases = by.weights[seed, block], by.biases[seed, block]
        for step in range(len(steps) - 1, -1, -1):
            values = kept[seed, block, step // together]
            if outputs[step] >= 0:
                by_output = by_outputs[outputs[step], seed, block]
                for i in range(len(by_y)):
                    for j in range(BLOCK):
                        by_y[i, j] += by_output[i, j]
            at = step % together * stages
            pull_step(network, gradients, values, at, (by_y, by_slope), steps[step], scheme)
            if at == 0:  # all of its group
                count = min(together, len(steps) - step) * stages
                add_outers(by_weights, by_biases, network, gradients, values, count)


@compiled
def pull_first_slope(by, y, networks):
    """Brings the gradient of f(y(0)) back to y(0) [seeds, blocks, units, BLOCK]."""
    values = np.zeros((networks.rows, 1, BLOCK), y.dtype)
    gradients, raw = np.zeros_like(values), np.zeros_like(values)
    for seed in range(y.shape[0]):
        network = of_seed(networks, seed)
        for block in range(y.shape[1]):
            copy(values, y[seed, block], START, START)
            evaluate_field(network, values, START, raw)
            copy(gradients, by.slopes[seed, block], networks.starts[-2], START)
            pull_evaluation(network, gradients, values, START)
            by_weights, by_biases = by.weights[seed, block], by.biases[seed, block]
            add_outers(by_weights, by_biases, network, gradients, values, START + 1)
            by_y = by.states[seed, block]
            for i in range(len(by_y)):
                for j in range(BLOCK):
                    by_y[i, j] += gradients[i, 0, j]
