"""Backprop through a fixed-step solve of a field of dense layers, written by hand.

Such a field is a few small matrix products: automatic differentiation, an entry for each of
thousands of operations, takes most of the time. Here a solve is one operation: it keeps
the inputs of every layer at every evaluation, and the gradients of the weights, sums over all
evaluations, are one product each. The gradient is backprop's, to rounding.

Tensors have the seeds of a pack as their first dimension, of size 1 for a trial alone: states
[seeds, batch, dim], weights [seeds, outputs, inputs], biases [seeds, 1, outputs].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nodebench.ode.field import Field
from nodebench.ode.tableau import Tableau

aten = torch.ops.aten

Backward = Callable[[Tensor, Tensor], Tensor]

# An activation's class -> itself, and its backward pass (gradient, output), both in place.
ACTIVATION_PASSES: dict[type[nn.Module], tuple[Callable[[Tensor], Tensor], Backward]] = {
    nn.ReLU: (
        torch.relu_,
        lambda g, out: aten.threshold_backward.grad_input(g, out, 0, grad_input=g),
    ),
    nn.LeakyReLU: (
        aten.leaky_relu_,
        lambda g, out: aten.leaky_relu_backward.grad_input(g, out, 0.01, True, grad_input=g),
    ),
    nn.Sigmoid: (
        torch.sigmoid_,
        lambda g, out: aten.sigmoid_backward.grad_input(g, out, grad_input=g),
    ),
    nn.Tanh: (
        torch.tanh_,
        lambda g, out: aten.tanh_backward.grad_input(g, out, grad_input=g),
    ),
}


class DenseField(Field):
    """f(t, y) = g(y), where g is linear layers with one activation between each two of them.

    Shapes: y [batch, dim] -> [batch, dim].
    """

    def __init__(self, g: nn.Sequential):
        super().__init__()
        self.g = g

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        out: Tensor = self.g(y)
        return out


def is_dense(g: nn.Sequential) -> bool:
    """Whether a sequence of layers can be a `DenseField`."""
    layers, activations = g[::2], g[1::2]
    return all(isinstance(part, nn.Linear) and part.bias is not None for part in layers) and (
        len(layers) == len(activations) + 1
        and len({type(part) for part in activations}) == 1
        and type(g[1]) in ACTIVATION_PASSES
    )


def dense_solve(
    field: DenseField,
    y0: Tensor,
    grids: Iterable[Iterable[float]],
    tableau: Tableau,
    on_evaluation: Callable[[], None],
) -> list[Tensor]:
    """The states at the start of the first grid and at the end of each.

    As `fixed.integrate`; `on_evaluation` is called at each evaluation of the field.
    """
    layers = [layer for layer in field.g if isinstance(layer, nn.Linear)]
    weights = [layer.weight[None] for layer in layers]
    biases = [layer.bias[None, None] for layer in layers]
    states = [y0[None]]
    for grid in grids:
        sizes = [after - before for before, after in itertools.pairwise(grid)]
        solve = (sizes, tableau, field.g[1], on_evaluation)
        states.append(_Solve.apply(solve, states[-1], *weights, *biases)[0])
    return [y0, *(y[0] for y in states[1:])]


class _Solve(torch.autograd.Function):
    """(what to do, y0, weights, biases) -> y1, and the inputs of each layer at each evaluation."""

    @staticmethod
    def forward(solve: Any, y0: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        sizes, tableau, activation, on_evaluation = solve
        weights, biases = _halves([p.detach() for p in parameters])
        activated, _ = ACTIVATION_PASSES[type(activation)]
        seeds, batch, _ = y0.shape
        evaluations = len(sizes) * len(tableau.b)
        inputs = [y0.new_empty(seeds, evaluations, batch, w.shape[2]) for w in weights]
        layers = [(b, w.transpose(1, 2)) for b, w in zip(biases, weights, strict=True)]
        slots = zip(*(each.unbind(1) for each in inputs), strict=True)  # of each evaluation
        y = y0
        for h in sizes:
            slopes: list[Tensor] = []
            for a in tableau.a:
                on_evaluation()
                first, *others = next(slots)
                x = first.copy_(_moved(y, h, a, slopes))
                for (b, w), slot in zip(layers, others, strict=False):
                    x = activated(torch.baddbmm(b, x, w, out=slot))
                slopes.append(torch.baddbmm(layers[-1][0], x, layers[-1][1]))
            y = _moved(y, h, tableau.b, slopes)
        return (y, *inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        solve, _, *parameters = inputs
        _, *kept = output
        ctx.solve = solve
        ctx.mark_non_differentiable(*kept)
        ctx.save_for_backward(*_halves(parameters)[0], *kept)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, a: Tensor, *_kept: None) -> tuple[Tensor | None, ...]:
        sizes, tableau, activation, _ = ctx.solve
        weights, inputs = _halves(ctx.saved_tensors)
        _, backward = ACTIVATION_PASSES[type(activation)]
        # The gradient of every layer's output, at every evaluation.
        gradients = [a.new_empty(*inputs[0].shape[:3], w.shape[1]) for w in weights]
        outputs, slots = (
            list(zip(*(x.unbind(1) for x in each), strict=True)) for each in (inputs, gradients)
        )
        for h in reversed(sizes):
            stages: list[Tensor] = []  # the gradient of each stage's state, the last first
            for stage in reversed(range(len(tableau.b))):
                later = [row[stage] for row in tableau.a[stage + 1 :]][::-1]
                slot, output = slots.pop(), outputs.pop()
                g = torch.mul(a, h * tableau.b[stage], out=slot[-1])
                for weight, after in zip(later, stages, strict=True):
                    g.add_(after, alpha=h * weight)
                for layer in reversed(range(1, len(weights))):
                    g = torch.bmm(g, weights[layer], out=slot[layer - 1])
                    backward(g, output[layer])
                stages.append(torch.bmm(g, weights[0]))
            a = sum(stages, a)
        flat = [(g.flatten(1, 2), x.flatten(1, 2)) for g, x in zip(gradients, inputs, strict=True)]
        by_weight = [torch.bmm(g.transpose(1, 2), x) for g, x in flat]
        by_bias = [g.sum(1, keepdim=True) for g, _ in flat]
        return (None, a, *by_weight, *by_bias)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], solve: Any, *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Seeds that are mapped over are more seeds."""

        def joined(x: Tensor, dim: int | None) -> Tensor:
            x = x[None].expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            return x.flatten(0, 1)

        seeds = [joined(x, dim) for x, dim in zip(tensors, in_dims[1:], strict=True)]
        out = _Solve.apply(solve, *seeds)
        return tuple(x.unflatten(0, (info.batch_size, -1)) for x in out), (0,) * len(out)


def _halves(tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    middle = len(tensors) // 2
    return tensors[:middle], tensors[middle:]


def _moved(y: Tensor, h: float, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """Y + h sum_i weights_i slopes_i."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            y = y.add(slope, alpha=h * weight)
    return y
