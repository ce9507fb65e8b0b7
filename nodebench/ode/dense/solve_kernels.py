"""Runge-Kutta solves of dense layers, and their gradients, compiled for the CPU by numba.

A solve is a plain loop without calls to torch: for small layers, such calls take longer than the
arithmetic. An item is a block of one seed's samples. Items are solved independently of each other,
unless an adaptive method chooses one step for all of them.

The values of all layers at some evaluations, and their gradients, are [rows, columns, BLOCK]: a row
is a unit and a column an evaluation. The units are followed by the derivatives of the hidden ones,
if their activation's output does not determine them. A layer's units are padded to a multiple of
`TILE_ROWS` with zero weights, so that loops have a known length and are vectorised.

`kept` holds all values of a solve, [seeds, blocks, groups, rows, columns, BLOCK]: a group is
several steps, with one column per stage, and one more if their number is even (`columns_of`). A
solve without a gradient has a single group, which is overwritten.

Arrays are passed whole, together with indices: views cost time, most of all to compile.
"""

from __future__ import annotations

import numpy as np

from nodebench.ode.compiled.decorators import compiled, compiled_part
from nodebench.ode.dense.activation_kernels import BLOCK, activate, pull_activation
from nodebench.ode.dense.parts import Layers
from nodebench.ode.dense.product_kernels import add_outer, multiply

GROUP = 4
"""The most evaluations in a group, unless a single step has more.

The products for the weight gradients of a group are computed together.
"""

START = np.int64(0)
"""The first column, in a type for which numba does not compile a version per constant."""


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
    """Computes dy/dt in the rows of the last output, from a state in those of the first input.

    `raw` has one column, for a layer's values before its activation.
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
    """Computes dL/dx in the rows of the first input, from dL/dslope in those of the last output."""
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
    """Copies a state or slope into the rows from `row`."""
    for i in range(len(y)):
        for j in range(BLOCK):
            out[row + i, at, j] = y[i, j]


@compiled_part
def copy_back(y, values, row, at):
    """Copies a state or slope out of the rows from `row`."""
    for i in range(len(y)):
        for j in range(BLOCK):
            y[i, j] = values[row + i, at, j]


@compiled_part
def move(out, y, h, weights, slopes, to, count):
    """Computes out = y + h sum_i weights_i slopes_i, of `count` slopes from (row, column) `to`."""
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
    """Evaluates a step from y in the columns from `at`, and leaves the next state in `raw`."""
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

    `items` is the range of items to solve, each a block of one seed.
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
    """Turns dL/d(state, last slope) after a step into those before it, in place."""
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
        if scheme.first:  # belongs to the previous evaluation, not to this column
            for j in range(BLOCK):
                by_slope[i, j] = gradients[output + i, at, j]
                gradients[output + i, at, j] = 0


@compiled
def pull_solve(items, by, by_outputs, outputs, kept, networks, steps, scheme):
    """Propagates dL/dy from the output times back to the first time, and adds dL/dW and dL/db.

    `outputs` holds for each step the index of the output time that it reaches, or -1.

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
            if at == 0:  # the group is complete
                count = min(together, len(steps) - step) * stages
                add_outers(by_weights, by_biases, network, gradients, values, count)


@compiled
def pull_first_slope(by, y, networks):
    """Propagates the gradient of f(y(0)) back to y(0) [seeds, blocks, units, BLOCK]."""
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
