"""Packs a dense field's parameters into the rows that compiled solves read, and unpacks gradients.

It uses NumPy, because a step takes dozens of views, and those of NumPy cost a fifth of torch's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from nodebench.ode.compiled.tile_size import TILE_ROWS
from nodebench.ode.dense.activation_kernels import SILU
from nodebench.ode.dense.parts import COMPILED_ACTIVATIONS, Floats, Layers, LinearMap


class Places(NamedTuple):
    """The offsets of layers in rows, sizes padded to multiples of `TILE_ROWS`: see `Layers`."""

    units: tuple[int, ...]
    """The units of the first layer's input, and of each layer's output."""

    starts: Floats
    places: Floats


@cache
def places_of(sizes: tuple[int, ...]) -> Places:
    """The places of layers with these unpadded units: of the first input, and of each output."""
    units = tuple(padded(size) for size in sizes)
    squares = [a * b for a, b in itertools.pairwise(units)]
    return Places(units, np.cumsum([0, *units]), np.cumsum([0, *squares]))


def padded(size: int) -> int:
    """A size, rounded up to a multiple of `TILE_ROWS`."""
    return size + -size % TILE_ROWS


class DenseLayers:
    """A field's layer sizes, the map behind each parameter, and the number of its activation.

    `maps` holds, for each layer's weight and then its bias, the map that computes it, or None if it
    is the parameter itself. Parameters and gradients have seeds as their first dimension.
    """

    def __init__(self, sizes: tuple[int, ...], maps: Sequence[LinearMap | None], activation: int):
        self.sizes, self.maps, self.activation = sizes, maps, activation

    def in_rows(self, parameters: Sequence[Floats]) -> Layers:
        """Weights and biases in the form that compiled solves read."""
        units, starts, places = places_of(self.sizes)
        seeds, dtype = len(parameters[0]), parameters[0].dtype
        weights, transposed = np.zeros((2, seeds, places[-1]), dtype)
        biases = np.zeros((seeds, starts[-1]), dtype)
        made = self._parts(weights, biases)
        for parameter, map_, part in zip(parameters, self.maps, made, strict=True):
            if map_ is None:
                part[...] = parameter
            else:
                map_.write(parameter, part)
        for layer, (columns, rows) in enumerate(itertools.pairwise(units)):
            square = slice(places[layer], places[layer + 1])
            across = weights[:, square].reshape(seeds, rows, columns).swapaxes(1, 2)
            transposed[:, square].reshape(seeds, columns, rows)[...] = across
        derivatives = starts[-2] - starts[1] if self.activation == SILU else 0
        rows = starts[-1] + derivatives
        return Layers(weights, transposed, biases, starts, places, rows, self.activation)

    def out_of_rows(self, weights: Floats, biases: Floats) -> list[Floats]:
        """The gradient of each parameter, from those of weights and biases in rows."""
        return [
            part.copy() if map_ is None else map_.pull(part)
            for part, map_ in zip(self._parts(weights, biases), self.maps, strict=True)
        ]

    def _parts(self, weights: Floats, biases: Floats) -> Iterator[Floats]:
        """Views of each layer's weight [seeds, outputs, inputs] and bias [seeds, outputs]."""
        units, starts, places = places_of(self.sizes)
        for layer, (inputs, outputs) in enumerate(itertools.pairwise(self.sizes)):
            square = weights[:, places[layer] : places[layer + 1]]
            yield square.reshape(-1, units[layer + 1], units[layer])[:, :outputs, :inputs]
            yield biases[:, starts[layer + 1] :][:, :outputs]


def dense_layers(g: nn.Sequential) -> tuple[DenseLayers, list[Tensor]]:
    """The layers of a `DenseField`'s g, and the parameter of each weight and bias."""
    linear = [layer for layer in g if isinstance(layer, nn.Linear)]
    sizes = (linear[0].in_features, *(layer.out_features for layer in linear))
    made = [part for layer in linear for part in _made_of(layer)]
    activation = COMPILED_ACTIVATIONS.index(type(g[1]))
    return DenseLayers(sizes, [map_ for _, map_ in made], activation), [p for p, _ in made]


def _made_of(layer: nn.Linear) -> Iterator[tuple[Tensor, LinearMap | None]]:
    """For a layer's weight and for its bias: the parameter, and the map that computes it."""
    for name in ("weight", "bias"):
        made_by: Any = getattr(getattr(layer, "parametrizations", None), name, ())
        if len(made_by) == 1 and hasattr(made_by[0], "pull"):
            yield made_by.original, made_by[0]
        else:
            yield getattr(layer, name), None
