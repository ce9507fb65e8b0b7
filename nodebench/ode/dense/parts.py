"""What compiled solves are given: layers, a tableau, where gradients go, how steps are chosen."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

Floats = NDArray[Any]


class Layers(NamedTuple):
    """Dense layers, whose parameters are in a row, or in one for each seed.

    Among the values of all layers, a layer's inputs are the rows from `starts[layer]`, and its
    outputs are the inputs of the next one.
    """

    weights: Floats
    """Of each layer, [outputs, inputs] from `places[layer]`."""

    transposed: Floats
    """The same, transposed."""

    biases: Floats
    """Of each layer, from `starts[layer + 1]`."""

    starts: Floats
    places: Floats
    rows: int
    """Of the values: all units, and each hidden unit's derivative if it is kept."""

    kind: int
    """The activation between layers."""


class Scheme(NamedTuple):
    """A tableau, whose `e` is empty if it is not an embedded one.

    `first` is the first stage that a step evaluates: 0, or 1 of embedded methods, whose step takes
    the slope at its start from the step before. `together` are the steps of a group.
    """

    a: Floats
    b: Floats
    e: Floats
    first: int
    together: int


class LossGradients(NamedTuple):
    """dL/dy and dL/dslope before some step, and dL/dW and dL/db in rows.

    Shapes: [seeds, blocks, units, BLOCK] and [seeds, blocks, ...].
    """

    states: Floats
    slopes: Floats
    weights: Floats
    biases: Floats


class Way(NamedTuple):
    """What steps of an adaptive solve follow: tolerances, a controller's exponents and bounds."""

    sign: float
    """1 or -1: the direction of time."""

    batch: int
    dim: int
    rtol: float
    atol: float
    integral: float
    proportional: float
    order: float
    safety: float
    least: float
    most: float
