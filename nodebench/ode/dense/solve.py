"""Solves of dense fields as one operation of autograd, whose two passes are compiled.

A solve keeps the state at the start of each step; the backward pass evaluates the layers of a step
again. The gradient is backprop's, to rounding.

Tensors have the seeds of a pack as their first dimension, of size 1 for a trial alone: states
[seeds, batch, dim], weights [seeds, outputs, inputs], biases [seeds, outputs].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from nodebench.ode.compiled import in_threads
from nodebench.ode.dense.activations import BLOCK
from nodebench.ode.dense.field import (
    COMPILED_ACTIVATIONS,
    DenseField,
    LinearMap,
    dense_parameters,
)
from nodebench.ode.dense.kernels import (
    GROUP,
    pull_first_slope,
    pull_solve,
    solve_fixed,
)
from nodebench.ode.dense.parts import Floats, Layers, LossGradients, Scheme
from nodebench.ode.dense.products import LANES
from nodebench.ode.tableau import EmbeddedTableau, Tableau

PIECE_BYTES = 32 << 20
"""The most memory that the C library keeps in one piece for the next solve (`machine.py`)."""


class Taken(NamedTuple):
    """The steps of a solve: their signed sizes, and the states at output times.

    `outputs` has of each step the number of the output time that it reaches, or -1, and `kept` is
    what the backward pass takes: the values of all layers at each evaluation, in pieces of some
    seeds.

    Shapes: states [times, seeds, blocks, units, BLOCK], kept as in `kernels.py`.
    """

    sizes: Floats
    outputs: Floats
    states: Floats
    kept: list[Tensor]


class SolveSteps(Protocol):
    """A way to take steps by a tableau: an explicit one, or an embedded one with error weights."""

    tableau: Tableau

    def take(self, y: Floats, network: Layers, *, keeps: bool) -> Taken:
        """Solves from y [seeds, blocks, units, BLOCK]."""


@dataclass
class FixedSteps:
    """SolveSteps of given sizes, by an explicit Runge-Kutta method."""

    tableau: Tableau
    sizes: Sequence[float]
    outputs: Sequence[int]

    def take(self, y: Floats, network: Layers, *, keeps: bool) -> Taken:
        """Solves from y [seeds, blocks, units, BLOCK]."""
        sizes, scheme = np.array(self.sizes), scheme_of(self.tableau)
        states = np.empty((*y.shape[:2], len(sizes) + 1, *y.shape[2:]), y.dtype)
        states[:, :, 0] = y
        groups = -(-len(sizes) // scheme.together) if keeps else 1
        shape = (y.shape[1], groups, network.starts[-1], columns_of(scheme), BLOCK)
        in_piece = max(1, PIECE_BYTES // max(1, math.prod(shape) * y.itemsize))
        kept = []
        for first in range(0, len(y), in_piece):
            seeds = slice(first, first + in_piece)
            kept.append(empty((len(y[seeds]), *shape), y))
            in_threads(
                solve_fixed, _items(y[seeds]), states[seeds], kept[-1].numpy(),
                _of_seeds(network, seeds), sizes, scheme,
            )  # fmt: skip
        outputs = np.array(self.outputs)
        reached = np.moveaxis(states[:, :, 1 + np.flatnonzero(outputs >= 0)], 2, 0)
        return Taken(sizes, outputs, reached, kept)


def dense_solve(field: DenseField, y0: Tensor, steps: SolveSteps) -> list[Tensor]:
    """The states at the output times of some steps."""
    parameters, maps = zip(*dense_parameters(field), strict=True)
    activation = COMPILED_ACTIVATIONS.index(type(field.g[1]))
    solve = _Solve(steps, activation, maps, keeps=torch.is_grad_enabled())
    states, *_ = _DenseSolve.apply(solve, y0[None], *(p[None] for p in parameters))
    return list(states[:, 0])


class _Solve:
    """One solve: how its steps are taken, by what network, and what they were."""

    network: Layers
    shapes: list[tuple[int, ...]]
    """Of the weights, [seeds, outputs, inputs]."""

    start: Floats
    sizes: Floats
    outputs: Floats

    def __init__(
        self,
        steps: SolveSteps,
        activation: int,
        maps: Sequence[LinearMap | None],
        *,
        keeps: bool,
    ):
        self.steps, self.activation, self.maps, self.keeps = steps, activation, maps, keeps

    def forward(self, y0: Tensor, parameters: Sequence[Tensor]) -> Taken:
        """The solve; what the backward pass takes, but for tensors, stays here."""
        made = zip(parameters, self.maps, strict=True)
        arrays = [(p if make is None else make(p)).detach().numpy() for p, make in made]
        self.shapes = [w.shape for w in arrays[::2]]
        self.network = _network(arrays, self.activation)
        self.start = to_blocks(y0)
        taken = self.steps.take(self.start, self.network, keeps=self.keeps)
        self.sizes, self.outputs = taken.sizes, taken.outputs
        return taken

    def backward(self, by_states: Tensor, kept: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """dL/dy(0) in blocks, and the gradient of each parameter."""
        network, start, scheme = self.network, self.start, scheme_of(self.steps.tableau)
        rows = [
            np.zeros((*start.shape[:2], row.shape[1]), row.dtype)
            for row in (network.weights, network.biases)
        ]
        by = LossGradients(np.zeros_like(start), np.zeros_like(start), *rows)
        by_outputs, first = to_blocks(by_states), 0
        for piece in kept:
            seeds = slice(first, first + len(piece))
            in_threads(
                pull_solve, _items(piece), LossGradients(*(each[seeds] for each in by)),
                np.ascontiguousarray(by_outputs[:, seeds]), self.outputs, piece.numpy(),
                _of_seeds(network, seeds), self.sizes, scheme,
            )  # fmt: skip
            first += len(piece)
        if scheme.first:
            pull_first_slope(by, start, network)
        weights, biases = (torch.from_numpy(row.sum(1)) for row in rows)
        pulled = zip(_apart(weights, biases, self.shapes), self.maps, strict=True)
        parameters = [by_made if map_ is None else map_.pull(by_made) for by_made, map_ in pulled]
        return torch.from_numpy(by.states), parameters


def _items(blocks: Floats | Tensor) -> int:
    """The blocks of all seeds, of an array [seeds, blocks, ...]."""
    seeds, count, *_ = blocks.shape
    return int(seeds * count)


def _of_seeds(network: Layers, seeds: slice) -> Layers:
    """The network of some seeds."""
    return network._replace(
        weights=network.weights[seeds],
        transposed=network.transposed[seeds],
        biases=network.biases[seeds],
    )


def _network(arrays: Sequence[Floats], activation: int) -> Layers:
    """The layers of all seeds, padded, from the weight and bias of each."""
    weights = arrays[::2]
    sizes = [weights[0].shape[2], *(w.shape[1] for w in weights)]
    units = [size + _padding(size) for size in sizes]
    starts = np.cumsum([0, *units])
    places = np.cumsum([0, *(a * b for a, b in itertools.pairwise(units))])
    seeds, dtype = len(weights[0]), weights[0].dtype
    rows = np.zeros((2, seeds, places[-1]), dtype)
    biases = np.zeros((seeds, starts[-1]), dtype)
    for layer, (w, b) in enumerate(zip(weights, arrays[1::2], strict=True)):
        outputs, inputs = w.shape[1:]
        square = rows[:, :, places[layer] : places[layer + 1]]
        square[0].reshape(seeds, units[layer + 1], -1)[:, :outputs, :inputs] = w
        square[1].reshape(seeds, units[layer], -1)[:, :inputs, :outputs] = w.swapaxes(1, 2)
        biases[:, starts[layer + 1] :][:, :outputs] = b
    return Layers(rows[0], rows[1], biases, starts, places, activation)


class _DenseSolve(torch.autograd.Function):
    """(the solve, y0, what each weight and bias is made of) -> the states at output times, `kept`.

    Shapes: [seeds, ...] -> states [times, seeds, batch, dim], and the pieces of `Taken.kept`.
    """

    @staticmethod
    def forward(solve: _Solve, y0: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        taken = solve.forward(y0.detach(), parameters)
        return _from_blocks(torch.from_numpy(taken.states), y0.shape), *taken.kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        solve, y0, *_parameters = inputs
        _, *kept = output
        ctx.solve, ctx.y_shape = solve, y0.shape
        ctx.mark_non_differentiable(*kept)
        ctx.save_for_backward(*kept)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_states: Tensor, *_kept: None) -> tuple[Tensor | None, ...]:
        by_start, parameters = ctx.solve.backward(by_states, ctx.saved_tensors)
        return None, _from_blocks(by_start, ctx.y_shape), *parameters

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], solve: Any, *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        """Seeds that are mapped over are more seeds."""

        def joined(x: Tensor, dim: int | None) -> Tensor:
            x = x[None].expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            return x.flatten(0, 1)

        seeds = [joined(x, dim) for x, dim in zip(tensors, in_dims[1:], strict=True)]
        states, *kept = _DenseSolve.apply(solve, *seeds)
        return (states.unflatten(1, (info.batch_size, -1)), *kept), (1, *(None for _ in kept))


def _apart(weights: Tensor, biases: Tensor, shapes: Sequence[tuple[int, ...]]) -> Iterator[Tensor]:
    """LossGradients in rows -> that of each layer's weight and bias."""
    at, bias_at = 0, _padded(shapes[0][2])
    for seeds, outputs, inputs in shapes:
        rows, columns = _padded(outputs), _padded(inputs)
        square = weights[:, at : at + rows * columns].view(seeds, rows, columns)
        yield square[:, :outputs, :inputs]
        yield biases[:, bias_at : bias_at + outputs]
        at, bias_at = at + rows * columns, bias_at + rows


def _padded(size: int) -> int:
    return size + _padding(size)


def _padding(size: int) -> int:
    return -size % LANES


def to_blocks(y: Tensor) -> Floats:
    """States [..., batch, dim] -> [..., blocks, units, BLOCK], filled up with zeros."""
    *_, batch, dim = y.shape
    whole = F.pad(y, (0, _padding(dim), 0, -batch % BLOCK))
    blocks: Floats = (
        whole.reshape(*y.shape[:-2], -1, BLOCK, whole.shape[-1]).mT.contiguous().numpy()
    )
    return blocks


def _from_blocks(y: Tensor, shape: torch.Size) -> Tensor:
    """[..., blocks, units, BLOCK] -> states [..., batch, dim], the last two of a shape."""
    *_, batch, dim = shape
    return y.mT.flatten(-3, -2)[..., :batch, :dim]


def empty(shape: Sequence[int], like: Floats) -> Tensor:
    """Memory for what a solve keeps, which torch counts among a step's."""
    return torch.empty(*shape, dtype=torch.from_numpy(like).dtype)


def columns_of(scheme: Scheme) -> int:
    """The columns of a group's values: an odd number.

    With an even one, the rows of a layer have few places in the first cache, and a product takes
    up to 1.5 times as long.
    """
    return (len(scheme.b) * scheme.together) | 1


@cache
def scheme_of(tableau: Tableau) -> Scheme:
    """A tableau, for compiled code."""
    a = np.zeros((len(tableau.b), len(tableau.b)))
    for row, values in zip(a, tableau.a, strict=True):
        row[: len(values)] = values
    e = np.array(tableau.e if isinstance(tableau, EmbeddedTableau) else (), dtype=float)
    together = 1 if len(e) else max(1, GROUP // len(tableau.b))
    return Scheme(a, np.array(tableau.b), e, int(len(e) > 0), together)
