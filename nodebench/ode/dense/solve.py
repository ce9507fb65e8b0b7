"""Solves of dense fields as one operation of autograd, whose two passes are compiled.

A solve keeps the state at the start of each step; the backward pass evaluates the layers of a step
again. The gradient is backprop's, to rounding.

Tensors have the seeds of a pack as their first dimension, of size 1 for a trial alone: states
[seeds, batch, dim], weights [seeds, outputs, inputs], biases [seeds, outputs].
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nodebench.ode.compiled import in_threads
from nodebench.ode.dense.activations import BLOCK
from nodebench.ode.dense.field import COMPILED_ACTIVATIONS, DenseField
from nodebench.ode.dense.kernels import (
    GROUP,
    pull_first_slope,
    pull_solve,
    solve_fixed,
)
from nodebench.ode.dense.parts import Floats, Layers, LossGradients, Scheme
from nodebench.ode.dense.products import LANES
from nodebench.ode.tableau import EmbeddedTableau, Tableau


class Taken(NamedTuple):
    """The steps of a solve: their signed sizes, and the states at output times.

    `outputs` has of each step the number of the output time that it reaches, or -1, and `kept` is
    what the backward pass takes: the values of all layers at each evaluation.

    Shapes: states [times, seeds, blocks, units, BLOCK], kept as in `kernels.py`.
    """

    sizes: Floats
    outputs: Floats
    states: Floats
    kept: Tensor


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
        sizes, stages = np.array(self.sizes), len(self.tableau.b)
        states = np.empty((*y.shape[:2], len(sizes) + 1, *y.shape[2:]), y.dtype)
        states[:, :, 0] = y
        together = max(1, GROUP // stages)
        groups = -(-len(sizes) // together) if keeps else 1
        shape = (groups, network.starts[-1], together * stages, BLOCK)
        kept = empty((*y.shape[:2], *shape), y)
        scheme = scheme_of(self.tableau)
        in_threads(solve_fixed, _items(y), states, kept.numpy(), network, sizes, scheme)
        outputs = np.array(self.outputs)
        reached = np.moveaxis(states[:, :, 1 + np.flatnonzero(outputs >= 0)], 2, 0)
        return Taken(sizes, outputs, reached, kept)


def dense_solve(field: DenseField, y0: Tensor, steps: SolveSteps) -> list[Tensor]:
    """The states at the output times of some steps."""
    layers = [layer for layer in field.g if isinstance(layer, nn.Linear)]
    parameters = [p[None] for layer in layers for p in (layer.weight, layer.bias)]
    solve = _Solve(
        steps, COMPILED_ACTIVATIONS.index(type(field.g[1])), keeps=torch.is_grad_enabled()
    )
    states, _ = _DenseSolve.apply(solve, y0[None], *parameters)
    return list(states[:, 0])


class _Solve:
    """One solve: how its steps are taken, by what network, and what they were."""

    network: Layers
    start: Floats
    sizes: Floats
    outputs: Floats

    def __init__(self, steps: SolveSteps, activation: int, *, keeps: bool):
        self.steps, self.activation, self.keeps = steps, activation, keeps

    def forward(self, y0: Tensor, parameters: Sequence[Tensor]) -> Taken:
        """The solve; what the backward pass takes, but for tensors, stays here."""
        self.network = _network(parameters, self.activation)
        self.start = to_blocks(y0)
        taken = self.steps.take(self.start, self.network, keeps=self.keeps)
        self.sizes, self.outputs = taken.sizes, taken.outputs
        return taken

    def backward(self, by_states: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """dL/dy(0), and those of weights and biases, in rows."""
        network, start, scheme = self.network, self.start, scheme_of(self.steps.tableau)
        rows = [
            np.zeros((*start.shape[:2], row.shape[1]), row.dtype)
            for row in (network.weights, network.biases)
        ]
        by = LossGradients(np.zeros_like(start), np.zeros_like(start), *rows)
        in_threads(
            pull_solve, _items(start), by, to_blocks(by_states), self.outputs, kept.numpy(),
            network, self.sizes, scheme,
        )  # fmt: skip
        if scheme.first:
            pull_first_slope(by, start, network)
        weights, biases = (torch.from_numpy(row.sum(1)) for row in rows)
        return torch.from_numpy(by.states), weights, biases


def _items(blocks: Floats) -> int:
    """The blocks of all seeds, of an array [seeds, blocks, ...]."""
    seeds, count, *_ = blocks.shape
    return int(seeds * count)


def _network(parameters: Sequence[Tensor], activation: int) -> Layers:
    """The layers of all seeds, padded."""
    weights = [w.detach().numpy() for w in parameters[::2]]
    sizes = [weights[0].shape[2], *(w.shape[1] for w in weights)]
    units = [size + _padding(size) for size in sizes]
    starts = np.cumsum([0, *units])
    places = np.cumsum([0, *(a * b for a, b in itertools.pairwise(units))])
    seeds, dtype = len(weights[0]), weights[0].dtype
    rows = np.zeros((2, seeds, places[-1]), dtype)
    biases = np.zeros((seeds, starts[-1]), dtype)
    for layer, (w, b) in enumerate(zip(weights, parameters[1::2], strict=True)):
        outputs, inputs = w.shape[1:]
        square = rows[:, :, places[layer] : places[layer + 1]]
        square[0].reshape(seeds, units[layer + 1], -1)[:, :outputs, :inputs] = w
        square[1].reshape(seeds, units[layer], -1)[:, :inputs, :outputs] = w.swapaxes(1, 2)
        biases[:, starts[layer + 1] :][:, :outputs] = b.detach().numpy()
    return Layers(rows[0], rows[1], biases, starts, places, activation)


class _DenseSolve(torch.autograd.Function):
    """(the solve, y0, each layer's weights and bias) -> the states at output times, all layers."""

    @staticmethod
    def forward(solve: _Solve, y0: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        taken = solve.forward(y0.detach(), parameters)
        return _from_blocks(torch.from_numpy(taken.states), y0.shape), taken.kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        solve, y0, *parameters = inputs
        _, kept = output
        ctx.solve, ctx.y_shape = solve, y0.shape
        ctx.shapes = [w.shape for w in parameters[::2]]
        ctx.mark_non_differentiable(kept)
        ctx.save_for_backward(kept)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_states: Tensor, *_kept: None) -> tuple[Tensor | None, ...]:
        by_start, weights, biases = ctx.solve.backward(by_states, *ctx.saved_tensors)
        return None, _from_blocks(by_start, ctx.y_shape), *_apart(weights, biases, ctx.shapes)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], solve: Any, *tensors: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        """Seeds that are mapped over are more seeds."""

        def joined(x: Tensor, dim: int | None) -> Tensor:
            x = x[None].expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            return x.flatten(0, 1)

        seeds = [joined(x, dim) for x, dim in zip(tensors, in_dims[1:], strict=True)]
        states, kept = _DenseSolve.apply(solve, *seeds)
        size = info.batch_size, -1
        return (states.unflatten(1, size), kept.unflatten(0, size)), (1, 0)


def _apart(weights: Tensor, biases: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """LossGradients in rows -> the gradient of each parameter."""
    found = []
    at, bias_at = 0, _padded(shapes[0][2])
    for seeds, outputs, inputs in shapes:
        rows, columns = _padded(outputs), _padded(inputs)
        square = weights[:, at : at + rows * columns].view(seeds, rows, columns)
        found.append(square[:, :outputs, :inputs])
        found.append(biases[:, bias_at : bias_at + outputs])
        at, bias_at = at + rows * columns, bias_at + rows
    return found


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


@cache
def scheme_of(tableau: Tableau) -> Scheme:
    """A tableau, for compiled code."""
    a = np.zeros((len(tableau.b), len(tableau.b)))
    for row, values in zip(a, tableau.a, strict=True):
        row[: len(values)] = values
    e = tableau.e if isinstance(tableau, EmbeddedTableau) else ()
    return Scheme(a, np.array(tableau.b), np.array(e, dtype=float), int(len(e) > 0))
