"""Solves of dense fields as one operation of autograd, whose two passes are compiled.

A solve keeps the values of all layers at each evaluation for the backward pass. The gradient is
backprop's, up to rounding.

Tensors have the seeds of a pack as their first dimension, of size 1 for a single trial: states
[seeds, batch, dim], weights [seeds, outputs, inputs], biases [seeds, outputs].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nodebench.ode.compiled.threads import in_threads
from nodebench.ode.dense.activation_kernels import BLOCK
from nodebench.ode.dense.layers import DenseLayers, dense_layers, padded
from nodebench.ode.dense.parts import Floats, Layers, LossGradients, Scheme
from nodebench.ode.dense.solve_kernels import (
    GROUP,
    pull_first_slope,
    pull_solve,
    solve_fixed,
)
from nodebench.ode.tableau import EmbeddedTableau, Tableau

PIECE_BYTES = 32 << 20
"""The largest block of memory that the C library keeps for the next solve (`machine.py`)."""


class Taken(NamedTuple):
    """The steps of a solve: their signed sizes, and the states at output times.

    `outputs` holds for each step the index of the output time that it reaches, or -1. `kept` holds
    the values of all layers at each evaluation for the backward pass, in pieces of several seeds.

    Shapes: states [times, seeds, blocks, units, BLOCK], kept as in `solve_kernels.py`.
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
        shape = (y.shape[1], groups, network.rows, columns_of(scheme), BLOCK)
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


def dense_solve(g: nn.Sequential, y0: Tensor, steps: SolveSteps) -> list[Tensor]:
    """The states of a `DenseField`'s g at the output times of the `steps`, from y0 [batch, dim]."""
    layers, parameters = dense_layers(g)
    solve = _Solve(steps, layers, keeps=torch.is_grad_enabled())
    states, *_ = _DenseSolve.apply(solve, y0, *parameters)
    return list(states)


class _Solve:
    """One solve: its way of taking steps, its layers, and the steps that it took."""

    network: Layers
    start: Floats
    sizes: Floats
    outputs: Floats

    def __init__(self, steps: SolveSteps, layers: DenseLayers, *, keeps: bool):
        self.steps, self.layers, self.keeps = steps, layers, keeps

    def forward(self, y0: Floats, parameters: Sequence[Floats]) -> Taken:
        """Solves from y0 in blocks; keeps what the backward pass needs, except tensors."""
        self.network, self.start = self.layers.in_rows(parameters), y0
        taken = self.steps.take(y0, self.network, keeps=self.keeps)
        self.sizes, self.outputs = taken.sizes, taken.outputs
        return taken

    def backward(self, by_outputs: Floats, kept: Sequence[Tensor]) -> tuple[Floats, list[Floats]]:
        """dL/dy(0), and the gradient of each parameter, from dL/dy(output times); y in blocks."""
        network, start, scheme = self.network, self.start, scheme_of(self.steps.tableau)
        rows = [
            np.zeros((*start.shape[:2], row.shape[1]), row.dtype)
            for row in (network.weights, network.biases)
        ]
        by = LossGradients(np.zeros_like(start), np.zeros_like(start), *rows)
        first = 0
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
        return by.states, self.layers.out_of_rows(*(row.sum(1) for row in rows))


def _items(blocks: Floats | Tensor) -> int:
    """The number of blocks of all seeds in an array [seeds, blocks, ...]."""
    seeds, count, *_ = blocks.shape
    return int(seeds * count)


def _of_seeds(network: Layers, seeds: slice) -> Layers:
    """The network of some seeds."""
    return network._replace(
        weights=network.weights[seeds],
        transposed=network.transposed[seeds],
        biases=network.biases[seeds],
    )


class _DenseSolve(torch.autograd.Function):
    """(the solve, y0, the parameters) -> the states at output times, and `kept`.

    Shapes: [..., batch, dim] -> states [times, ..., batch, dim], and the pieces of `Taken.kept`.
    Leading dimensions are seeds; parameters have the same ones.
    """

    @staticmethod
    def forward(solve: _Solve, y0: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        *seeds, batch, dim = y0.shape
        y, *rest = (
            x.detach().numpy().reshape(-1, *x.shape[len(seeds) :]) for x in (y0, *parameters)
        )
        taken = solve.forward(to_blocks(y), rest)
        states = _from_blocks(taken.states, batch, dim)
        return torch.from_numpy(states.reshape(len(states), *y0.shape)), *taken.kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        solve, y0, *_parameters = inputs
        _, *kept = output
        ctx.solve, ctx.shape = solve, y0.shape
        ctx.mark_non_differentiable(*kept)
        ctx.save_for_backward(*kept)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_states: Tensor, *_kept: None) -> tuple[Tensor | None, ...]:
        *seeds, batch, dim = ctx.shape
        by_outputs = to_blocks(by_states.detach().numpy().reshape(len(by_states), -1, batch, dim))
        by_start, by_parameters = ctx.solve.backward(by_outputs, ctx.saved_tensors)
        by_y0 = _from_blocks(by_start, batch, dim).reshape(ctx.shape)
        return (
            None,
            torch.from_numpy(by_y0),
            *(torch.from_numpy(by.reshape(*seeds, *by.shape[1:])) for by in by_parameters),
        )

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], solve: Any, *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        """The mapped dimension becomes a dimension of seeds."""

        def first(x: Tensor, dim: int | None) -> Tensor:
            return x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)

        seeds = [first(x, dim) for x, dim in zip(tensors, in_dims[1:], strict=True)]
        states, *kept = _DenseSolve.apply(solve, *seeds)
        return (states, *kept), (1, *(None for _ in kept))


def to_blocks(y: Floats) -> Floats:
    """States [..., batch, dim] -> [..., blocks, units, BLOCK], padded with zeros."""
    *before, batch, dim = y.shape
    blocks = -(-batch // BLOCK)
    whole = np.zeros((*before, blocks * BLOCK, padded(dim)), y.dtype)
    whole[..., :batch, :dim] = y
    return np.ascontiguousarray(whole.reshape(*before, blocks, BLOCK, -1).swapaxes(-1, -2))


def _from_blocks(y: Floats, batch: int, dim: int) -> Floats:
    """[..., blocks, units, BLOCK] -> states [..., batch, dim]."""
    *before, _, units, _ = y.shape
    return y.swapaxes(-1, -2).reshape(*before, -1, units)[..., :batch, :dim]


def empty(shape: Sequence[int], like: Floats) -> Tensor:
    """Memory for what a solve keeps, which torch counts as memory of the training step."""
    return torch.empty(*shape, dtype=torch.from_numpy(like).dtype)


def columns_of(scheme: Scheme) -> int:
    """The number of columns of a group's values, always odd.

    With an even number, the rows of a layer share few sets of the L1 cache, and a product takes up
    to 1.5 times as long.
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
