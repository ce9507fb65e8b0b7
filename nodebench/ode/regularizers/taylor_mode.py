"""Taylor coefficients of layers: those of g(y(s)) from those of y(s), one order after the other.

The coefficient of order k costs a linear layer one map, and any other about k products; k nested
derivatives in forward mode cost 2ᵏ maps.

Source: Griewank, Walther 2008, *Evaluating derivatives*, 2nd edition, chapter 13; of ODEs'
solutions, Bettencourt, Johnson, Duvenaud 2019, *Taylor-mode automatic differentiation*.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodebench.ode.field import Series, has_hooks

Rule = Callable[[Any], Series | None]
"""A layer -> its series; None for settings of which there is none."""


class Affine:
    """A linear map, which has its bias in the coefficient of order 0 alone."""

    def __init__(self, linear: Callable[[Tensor, Tensor | None], Tensor], bias: Tensor | None):
        self._linear, self._bias = linear, bias

    def __call__(self, x: Tensor) -> Tensor:
        """The next coefficient."""
        out = self._linear(x, self._bias)
        self._bias = None
        return out


class PiecewiseLinear:
    """An activation with a slope of 1 above 0, and another below."""

    def __init__(self, below: float):
        self._below = below
        self._slope: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The next coefficient."""
        if self._slope is None:
            self._slope = torch.where(x > 0, torch.ones_like(x), self._below)
        return x * self._slope


class Activation:
    """A function v of u, by its derivative w: from v' = w u', k vₖ = Σⱼ j uⱼ wₖ₋ⱼ."""

    def __init__(self) -> None:
        self._inner: list[Tensor] = []  # j uⱼ, from j = 1 on
        self._slopes: list[Tensor] = []

    def __call__(self, u: Tensor) -> Tensor:
        """The next coefficient."""
        order = len(self._slopes)
        if order:
            self._inner.append(order * u)
            v = product_coefficient(self._inner, self._slopes) / order
        else:
            v = self.value(u)
        self._slopes.append(self.slope(u, v))
        return v

    def value(self, u: Tensor) -> Tensor:
        """The function."""
        raise NotImplementedError

    def slope(self, u: Tensor, v: Tensor, /) -> Tensor:
        """The next coefficient of w, from those of u and v."""
        raise NotImplementedError


class Sigmoid(Activation):
    """The logistic function, by w = v − v²."""

    constant, linear = 0.0, 1.0

    def __init__(self) -> None:
        super().__init__()
        self._values: list[Tensor] = []

    def value(self, u: Tensor) -> Tensor:
        """The function."""
        return torch.sigmoid(u)

    def slope(self, _u: Tensor, v: Tensor, /) -> Tensor:
        """The next coefficient of constant + linear v − v²."""
        is_first = not self._values
        self._values.append(v)
        w = self.linear * v - product_coefficient(self._values, self._values)
        return w + self.constant if is_first else w


class Tanh(Sigmoid):
    """The hyperbolic tangent, by w = 1 − v²."""

    constant, linear = 1.0, 0.0

    def value(self, u: Tensor) -> Tensor:
        """The function."""
        return torch.tanh(u)


class Softplus(Activation):
    """ln(1 + eᵘ), whose derivative is the logistic function."""

    def __init__(self) -> None:
        super().__init__()
        self._sigmoid = Sigmoid()

    def value(self, u: Tensor) -> Tensor:
        """The function."""
        return F.softplus(u)

    def slope(self, u: Tensor, _v: Tensor, /) -> Tensor:
        """The next coefficient of the logistic function."""
        return self._sigmoid(u)


class Standardized:
    """Deviations from a `mean` over the standard deviation, which is of the same entries.

    With q the variance, the coefficients of r = q^(−1/2) follow from 2 q r' = −q' r.
    """

    def __init__(self, eps: float, mean: Callable[[Tensor], Tensor]):
        self._eps, self._mean = eps, mean
        self._deviations: list[Tensor] = []
        self._variances: list[Tensor] = []
        self._inverses: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        """The next coefficient."""
        self._deviations.append(x - self._mean(x))
        variance = self._mean(product_coefficient(self._deviations, self._deviations))
        self._inverses.append(self._inverse(variance))
        return product_coefficient(self._deviations, self._inverses)

    def _inverse(self, variance: Tensor) -> Tensor:
        order = len(self._inverses)
        if not order:
            return (variance + self._eps).rsqrt()
        self._variances.append(variance)
        shares = [(j / (2 * order) - 1) * q for j, q in enumerate(self._variances, 1)]
        return product_coefficient(shares, self._inverses) * self._inverses[0].square()


def product_coefficient(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Σ leftᵢ rightₙ₋ᵢ, the last coefficient of a product."""
    products = map(operator.mul, left, reversed(right))
    return functools.reduce(operator.add, products)


def composed(parts: Sequence[Series]) -> Series:
    """The series of one part after the other."""
    return lambda x: functools.reduce(lambda coefficient, part: part(coefficient), parts, x)


def _scaled(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    x = x if scale is None else x * scale
    return x if shift is None else x + shift


def _scaled_by_channel(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """With scale and shift [channels] of [batch, channels, ...]."""
    shape = (-1, *(1,) * (x.dim() - 2))
    scale, shift = (each if each is None else each.view(shape) for each in (scale, shift))
    return _scaled(x, scale, shift)


def _linear(layer: nn.Linear) -> Series:
    weight = layer.weight
    return Affine(lambda x, bias: F.linear(x, weight, bias), layer.bias)


def _convolution(layer: nn.Conv1d | nn.Conv2d) -> Series:
    weight = layer.weight
    return Affine(lambda x, bias: layer._conv_forward(x, weight, bias), layer.bias)


def _channel_norm(layer: Any, mean: Callable[[Tensor], Tensor]) -> Series:
    scaled = Affine(lambda x, shift: _scaled_by_channel(x, layer.weight, shift), layer.bias)
    return composed([Standardized(layer.eps, mean), scaled])


def _mean_of_channels(x: Tensor) -> Tensor:
    """Of each sample and channel, [batch, channels, 1, ...]."""
    return x.mean(tuple(range(2, x.dim())), keepdim=True) if x.dim() > 2 else x


def _mean_of_batch(x: Tensor) -> Tensor:
    """Of each channel, [1, channels, 1, ...]."""
    return x.mean((0, *range(2, x.dim())), keepdim=True)


def group_norm(layer: nn.GroupNorm) -> Series:
    """A group norm's."""
    size = layer.num_channels // layer.num_groups

    def mean(x: Tensor) -> Tensor:
        of_channels = _mean_of_channels(x)  # first, since space is what takes time
        of_groups = of_channels.view(len(x), -1, size).mean(2)
        return of_groups.repeat_interleave(size, 1).view_as(of_channels)

    return _channel_norm(layer, mean)


def _layer_norm(layer: nn.LayerNorm) -> Series:
    last = tuple(range(-len(layer.normalized_shape), 0))
    scaled = Affine(lambda x, shift: _scaled(x, layer.weight, shift), layer.bias)
    return composed([Standardized(layer.eps, lambda x: x.mean(last, keepdim=True)), scaled])


def _instance_norm(layer: Any) -> Series:
    series, without_batch = _by_statistics(layer, _mean_of_channels), layer._get_no_batch_dim()
    return lambda x: series(x[None])[0] if x.dim() == without_batch else series(x)


def _batch_norm(layer: Any) -> Series:
    return _by_statistics(layer, _mean_of_batch)


def _by_statistics(layer: Any, mean_of_input: Callable[[Tensor], Tensor]) -> Series:
    """By the input's statistics in training, which updates none that are kept."""
    mean, variance = layer.running_mean, layer.running_var
    if layer.training or mean is None or variance is None:
        return _channel_norm(layer, mean_of_input)
    scale = (variance + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight
    shift = -mean * scale if layer.bias is None else layer.bias - mean * scale
    return Affine(lambda x, shift: _scaled_by_channel(x, scale, shift), shift)


def _softplus(layer: nn.Softplus) -> Series | None:
    return Softplus() if (layer.beta, layer.threshold) == (1, 20) else None


RULES: Mapping[Callable[..., Any], Rule] = {
    nn.Linear.forward: _linear,
    nn.Conv1d.forward: _convolution,
    nn.Conv2d.forward: _convolution,
    nn.ReLU.forward: lambda _layer: PiecewiseLinear(0.0),
    nn.LeakyReLU.forward: lambda layer: PiecewiseLinear(layer.negative_slope),
    nn.Sigmoid.forward: lambda _layer: Sigmoid(),
    nn.Tanh.forward: lambda _layer: Tanh(),
    nn.Softplus.forward: _softplus,
    nn.Identity.forward: lambda _layer: lambda x: x,
    nn.GroupNorm.forward: group_norm,
    nn.LayerNorm.forward: _layer_norm,
    nn.BatchNorm2d.forward: _batch_norm,
    nn.InstanceNorm2d.forward: _instance_norm,
}
"""By `forward`, which parametrized layers and other subclasses share unless they change it."""


def series_of(
    layers: Iterable[nn.Module], rules: Mapping[Callable[..., Any], Rule] = RULES
) -> Series | None:
    """The series of layers one after the other; None if one of them has none, or has hooks."""
    made: list[Series] = []
    for layer in layers:
        rule = rules.get(type(layer).forward)
        is_known = rule is not None and "forward" not in vars(layer) and not has_hooks(layer)
        series = rule(layer) if rule is not None and is_known else None
        if series is None:
            return None
        made.append(series)
    return composed(made)
