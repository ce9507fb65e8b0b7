"""The series of each kind of layer; a new norm or activation needs a row here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodebench.ode.field import has_hooks, runs_as
from nodebench.ode.taylor.series import (
    Activation,
    Affine,
    PiecewiseLinear,
    Series,
    Standardized,
    composed,
    product_coefficient,
    sigmoidal,
)

Rule = Callable[[Any], Series]
Mean = Callable[[Tensor], Tensor]


def _linear(layer: nn.Linear) -> Series:
    weight = layer.weight
    return Affine(lambda x, bias: F.linear(x, weight, bias), layer.bias)


def _convolution(layer: nn.Conv1d | nn.Conv2d) -> Series:
    weight = layer.weight
    return Affine(lambda x, bias: layer._conv_forward(x, weight, bias), layer.bias)


def _sigmoid() -> Series:
    return sigmoidal(torch.sigmoid, constant=0.0, linear=1.0)


def _tanh() -> Series:
    return sigmoidal(torch.tanh, constant=1.0, linear=0.0)


def _softplus(layer: nn.Softplus) -> Series:
    """Its derivative is the logistic function of beta u."""
    derivative = _sigmoid()
    return Activation(layer, lambda u, _v: derivative(layer.beta * u))


def _elu(layer: nn.ELU) -> Series:
    """Its derivative is 1 above zero, and its own value plus alpha below."""
    is_above: list[Tensor] = []

    def slope(u: Tensor, v: Tensor) -> Tensor:
        if is_above:
            return v.masked_fill(is_above[0], 0.0)
        is_above.append(u > 0)
        return (v + layer.alpha).masked_fill(is_above[0], 1.0)

    return Activation(layer, slope)


def _silu() -> Series:
    """The product of the input and its logistic function."""
    share = _sigmoid()
    inputs: list[Tensor] = []
    shares: list[Tensor] = []

    def coefficient(u: Tensor) -> Tensor:
        inputs.append(u)
        shares.append(share(u))
        return product_coefficient(inputs, shares)

    return coefficient


def _scaled(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    x = x if scale is None else x * scale
    return x if shift is None else x + shift


def _channels_scaled(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """Applies scale and shift [channels] to x [batch, channels, ...]."""
    scale, shift = (each if each is None else of_channels(each, x) for each in (scale, shift))
    return _scaled(x, scale, shift)


def of_channels(numbers: Tensor, x: Tensor) -> Tensor:
    """Numbers [channels], reshaped to broadcast over x [batch, channels, ...]."""
    return numbers.view(-1, *(1,) * (x.dim() - 2))


def _channel_norm(layer: Any, mean: Mean) -> Series:
    scaled = Affine(lambda x, shift: _channels_scaled(x, layer.weight, shift), layer.bias)
    return composed([Standardized(layer.eps, mean), scaled])


def _mean_of_channels(x: Tensor) -> Tensor:
    """The mean of each sample and channel, [batch, channels, 1, ...]."""
    return x.mean(tuple(range(2, x.dim())), keepdim=True) if x.dim() > 2 else x


def _mean_of_batch(x: Tensor) -> Tensor:
    """The mean of each channel, [1, channels, 1, ...]."""
    return x.mean((0, *range(2, x.dim())), keepdim=True)


def _group_norm(layer: nn.GroupNorm) -> Series:
    size = layer.num_channels // layer.num_groups

    def mean(x: Tensor) -> Tensor:
        means = _mean_of_channels(x)  # first, since averaging over space takes the most time
        of_groups = means.view(len(x), -1, size).mean(2)
        return of_groups.repeat_interleave(size, 1).view_as(means)

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


def _by_statistics(layer: Any, mean_of_input: Mean) -> Series:
    """Uses the input's statistics in training, without updating the running ones."""
    mean, variance = layer.running_mean, layer.running_var
    if layer.training or mean is None or variance is None:
        return _channel_norm(layer, mean_of_input)
    scale = (variance + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight
    shift = -mean * scale if layer.bias is None else layer.bias - mean * scale
    return Affine(lambda x, shift: _channels_scaled(x, scale, shift), shift)


RULES: Mapping[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.ReLU: lambda _layer: PiecewiseLinear(0.0),
    nn.LeakyReLU: lambda layer: PiecewiseLinear(layer.negative_slope),
    nn.Sigmoid: lambda _layer: _sigmoid(),
    nn.Tanh: lambda _layer: _tanh(),
    nn.Softplus: _softplus,
    nn.ELU: _elu,
    nn.SiLU: lambda _layer: _silu(),
    nn.Identity: lambda _layer: lambda x: x,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.InstanceNorm1d: _instance_norm,
    nn.InstanceNorm2d: _instance_norm,
}
"""Rules by the class whose `forward` a layer runs; parametrized layers inherit theirs."""


def rule_for(layer: nn.Module, rules: Mapping[type[nn.Module], Rule] = RULES) -> Rule | None:
    """The rule of the class whose `forward` a layer runs, if there is one."""
    kind = next((kind for kind in type(layer).__mro__ if kind in rules), None)
    is_same = kind is not None and type(layer).forward is kind.forward
    return rules[kind] if is_same and "forward" not in vars(layer) else None


def series_of(
    layers: Iterable[nn.Module], rules: Mapping[type[nn.Module], Rule] = RULES
) -> Series | None:
    """The series of consecutive layers; None if one of them has no rule, or has hooks."""
    made: list[Series] = []
    for layer in layers:
        rule = rule_for(layer, rules)
        if rule is None or has_hooks(layer):
            return None
        made.append(rule(layer))
    return composed(made)


def series_of_sequence(g: nn.Module) -> Series | None:
    """The series of a plain `nn.Sequential`; None for anything else."""
    if not isinstance(g, nn.Sequential) or not runs_as(g, nn.Sequential):
        return None
    return series_of(g)
