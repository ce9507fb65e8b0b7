"""The parts of compiled solves: activations, layers, a tableau, gradients, step size control."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray
from torch import nn

Floats = NDArray[Any]

COMPILED_ACTIVATIONS: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh),
    *(nn.Softplus, nn.ELU, nn.SiLU),
)
"""The compiled activations, in the order of their numbers in `activation_kernels.py`."""


class LinearMap(Protocol):
    """A parametrization that computes a layer's weight or bias by a linear map of its parameter.

    Both have seeds as their first dimension.
    """

    def write(self, parameter: Floats, made: Floats) -> None:
        """Writes the weight or bias into zeros of its shape."""

    def pull(self, by_made: Floats) -> Floats:
        """The gradient of the parameter, from that of the weight or bias."""


class Layers(NamedTuple):
    """Dense layers, whose parameters are in one row, or in one row per seed.

    Among the values of all layers, a layer's inputs are the rows from `starts[layer]`, and its
    outputs are the next layer's inputs.
    """

    weights: Floats
    """Each layer's weights [outputs, inputs], from `places[layer]`."""

    transposed: Floats
    """The same, transposed."""

    biases: Floats
    """Each layer's biases, from `starts[layer + 1]`."""

    starts: Floats
    places: Floats
    rows: int
    """The number of rows of values: all units, and each hidden unit's derivative if it is kept."""

    kind: int
    """The activation between layers."""


class Scheme(NamedTuple):
    """A tableau in arrays; `e` is empty if it is not an embedded one.

    `first` is the first stage that a step evaluates: 0, or 1 for embedded methods, which take the
    slope at the start of a step from the previous one. `together` is the number of steps in a
    group.
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


class ErrorControl(NamedTuple):
    """The settings of an adaptive solve: tolerances, and a controller's exponents and bounds."""

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
