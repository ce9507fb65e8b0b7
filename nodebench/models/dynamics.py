"""Right-hand sides f(t, y), and the residual block x + f(0, x)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from nodebench.models.chains.chain import Chain
from nodebench.models.chains.images import are_compiled, is_plain
from nodebench.models.chains.operation import Operation, Rectifier
from nodebench.models.chains.solve import ChainSolve
from nodebench.models.layers.batch_norm import KeptStatistics, can_scale
from nodebench.models.layers.conv import Conv2d, Convolution, can_convolve, convolved
from nodebench.models.layers.factory import LayerFactory
from nodebench.models.layers.group_norm import GroupNorm, Normalization, can_normalize
from nodebench.ode.compiled.tile_size import TILE_ROWS
from nodebench.ode.dense.field import DenseField, is_dense
from nodebench.ode.field import Field, WholeSolve, has_hooks, runs_as
from nodebench.ode.taylor.rules import RULES, of_channels, series_of, series_of_sequence
from nodebench.ode.taylor.series import Affine, Series, made_at_first
from nodebench.ode.weight_cache import once_per_solve
from nodebench.spec.vocabulary import DYNAMICS


def _convolution(layer: Conv2d) -> Series:
    weight = layer.weight
    return Affine(lambda x, bias: convolved(layer, x, weight, bias), layer.bias)


LAYER_RULES = {**RULES, Conv2d: _convolution, GroupNorm: RULES[nn.GroupNorm]}
"""The rules of torch's layers, and of ours."""


class TimeConv(Field):
    """A convolution over [t; y]: time is one more input channel, the first.

    Since a convolution is linear, this is conv(y) + t conv(1), each with its part of the filters.
    It needs no copy of y, and with 64 channels instead of 65 it takes seven tenths of the time.
    Shapes: y [batch, channels, ...] -> [batch, the convolution's outputs, ...].
    """

    def __init__(self, conv: nn.Conv1d | nn.Conv2d):
        super().__init__()
        self.conv = conv

    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        """The convolution of y, preceded by a channel of constant t."""
        filters, of_time = self.parts(y)
        out: Tensor = self.conv._conv_forward(y, filters, self.conv.bias)
        # Multiplied first: with `alpha=t`, backprop would scale a gradient as large as the batch.
        return out.add_(of_time * t)

    def parts(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The filters of y, and the convolution of a channel of ones, [1, outputs, ...]."""
        return once_per_solve(self, y.shape[2:], lambda: self._parts(y))

    def series(self, t: float | Tensor, rate: float) -> Series:
        """The convolution over [t + rate s; y(s)] as a series."""
        return made_at_first(lambda y: self._series(t, rate, y))

    def _series(self, t: float | Tensor, rate: float, y: Tensor) -> Series:
        filters, of_time = self.parts(y)
        start = of_time * t
        if self.conv.bias is not None:
            start = start + of_channels(self.conv.bias, y)

        def over_state(x: Tensor, of_time: Tensor | None) -> Tensor:
            out = convolved(self.conv, x, filters, None)
            return out if of_time is None else out + of_time

        return Affine(over_state, start, of_time * rate if rate else None)

    def _parts(self, y: Tensor) -> tuple[Tensor, Tensor]:
        of_time, filters = torch.split(self.conv.weight, [1, y.shape[1]], dim=1)
        ones = y.new_ones((1, 1, *y.shape[2:]))
        return _without_gaps(filters), self.conv._conv_forward(ones, of_time, None)


def _without_gaps(filters: Tensor) -> Tensor:
    """The filters without gaps in memory, and channels last if they were."""
    if filters.ndim == 4 and filters.stride(1) == 1:
        return filters.movedim(1, -1).contiguous().movedim(-1, 1)
    return filters.contiguous()


class Dynamics(Field):
    """f(t, y) as a sequence of layers: a row of `vocabulary.DYNAMICS`.

    As the right-hand side of an ODE it keeps the shape; in a residual block between two stages,
    its first convolution has `outputs` filters and a stride. On the CPU, layers of images that keep
    the shape are computed in chains.
    Shapes: y [batch, channels, ...] -> [batch, outputs, .../stride].
    """

    def __init__(
        self,
        name: str,
        channels: int,
        layer: LayerFactory,
        outputs: int | None = None,
        stride: int = 1,
    ):
        super().__init__()
        form = DYNAMICS[name]
        self.keeps_shape = stride == 1 and outputs in (None, channels)
        self.layers = nn.ModuleList()
        for kind in form.layers.split():
            if kind == "norm":
                self.layers.append(layer.norm(channels))
            elif kind == "act":
                self.layers.append(layer.act())
            else:
                inputs, channels = channels + form.time, outputs or channels
                conv = layer.conv(inputs, channels, 3, stride=stride, padding=1, bias=form.bias)
                self.layers.append(TimeConv(conv) if form.time else conv)
                stride = 1

    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        t = _as_number(t)
        for layer in self.layers if isinstance(t, Tensor) else self._chains(y):
            y = layer(t, y) if isinstance(layer, Chain | TimeConv) else layer(y)
        return y

    def whole_solve(self, y0: Tensor, /) -> WholeSolve | None:
        """A solve along a chain of all layers, or None if they do not form one."""
        layers = list(self._chains(y0))
        if len(layers) == 1 and isinstance(layers[0], Chain) and runs_as(self, Dynamics):
            return ChainSolve(layers[0])
        return None

    def series(self, t: float | Tensor, rate: float, /) -> Series | None:
        """The series, by the rules of all layers."""
        if not runs_as(self, Dynamics):
            return None
        return series_of(self.layers, {**LAYER_RULES, TimeConv: lambda conv: conv.series(t, rate)})

    def _chains(self, y: Tensor) -> Iterable[Chain | nn.Module]:
        """The layers, in chains where possible."""
        if not (self.keeps_shape and are_compiled(y)):
            return self.layers
        kind = ("chains", y.shape[1:], len(y) >= TILE_ROWS)
        return once_per_solve(self, kind, lambda: list(_chained(self.layers, y)))


def _as_number(t: float | Tensor) -> float | Tensor:
    """A time as a number, if it is the same for all samples, on the CPU and not differentiated."""
    if not isinstance(t, Tensor) or t.dim() or t.requires_grad or not is_plain(t):
        return t
    return t.item()


def _chained(layers: Iterable[nn.Module], y: Tensor) -> Iterator[Chain | nn.Module]:
    """The layers, in chains where possible."""
    active = (each for each in layers if not isinstance(each, nn.Identity) or has_hooks(each))
    pairs = [(layer, _operation(layer, y)) for layer in active]
    for can_chain, group in itertools.groupby(pairs, lambda pair: pair[1] is not None):
        alone, operations = zip(*group, strict=True)
        if can_chain and any(operation.weights for operation in operations):
            yield Chain(operations)
        else:
            yield from alone


def _operation(layer: nn.Module, y: Tensor) -> Operation | None:
    """A layer's operation in a chain; None if it has to run in torch, for example due to hooks."""
    if has_hooks(layer):
        return None
    if isinstance(layer, TimeConv) and can_convolve(layer.conv, y, of_time=1):
        filters, of_time = layer.parts(y)
        return Convolution(layer.conv, y, filters, layer.conv.bias, of_time)
    if can_convolve(layer, y):
        return Convolution(layer, y, layer.weight, layer.bias)
    if isinstance(layer, nn.ReLU):
        return Rectifier()
    if can_scale(layer, y):
        return KeptStatistics(layer)
    return Normalization(layer) if can_normalize(layer, y) else None


class Autonomous(Field):
    """f(t, y) = g(y)."""

    def __init__(self, g: nn.Module):
        super().__init__()
        self.g = g

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        out: Tensor = self.g(y)
        return out

    def series(self, _t: float | Tensor, _rate: float, /) -> Series | None:
        """The series, by the rules of all layers."""
        return series_of_sequence(self.g) if runs_as(self, Autonomous) else None


def autonomous(g: nn.Sequential) -> Field:
    """f(t, y) = g(y), in the form that is fastest."""
    return DenseField(g) if is_dense(g) else Autonomous(g)


class ResidualBlock(nn.Module):
    """x + f(0, x): one Euler step of size 1.

    The original block (He et al. 2016a) has an activation after the sum and, where f changes the
    shape, a `shortcut` for x.
    """

    def __init__(
        self, f: nn.Module, shortcut: nn.Module | None = None, after: nn.Module | None = None
    ):
        super().__init__()
        self.f = f
        self.shortcut = shortcut or nn.Identity()
        self.after = after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, of the shape of f's."""
        out: Tensor = self.after(self.shortcut(x) + self.f(0.0, x))
        return out


class DownsamplingBlock(nn.Module):
    """A pre-activation residual block that halves height and width.

    Shapes: [batch, channels, height, width] -> [batch, outputs, ceil(height/2), ceil(width/2)].
    Source: He et al. 2016b; the shortcut is a 1 x 1 convolution taken after norm and activation.
    """

    def __init__(self, channels: int, outputs: int, layer: LayerFactory):
        super().__init__()
        self.before = nn.Sequential(layer.norm(channels), layer.act())
        self.residual = nn.Sequential(
            layer.conv(channels, outputs, 3, stride=2, padding=1, bias=False),
            layer.norm(outputs),
            layer.act(),
            layer.conv(outputs, outputs, 3, padding=1, bias=False),
        )
        self.shortcut = layer.conv(channels, outputs, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output at half the resolution."""
        x = self.before(x)
        out: Tensor = self.residual(x) + self.shortcut(x)
        return out
