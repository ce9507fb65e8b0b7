"""Norms and weight norms by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.nn.utils import parametrizations

# (channels, dimensions of space) -> a layer.
NORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "gn": lambda channels, _space: nn.GroupNorm(min(32, channels), channels),
    "bn": lambda channels, space: (nn.BatchNorm1d, nn.BatchNorm2d)[space - 1](channels),
    "ln": lambda channels, _space: nn.GroupNorm(1, channels),
    "in": lambda channels, space: (nn.InstanceNorm1d, nn.InstanceNorm2d)[space - 1](channels),
    "nf": lambda _channels, _space: nn.Identity(),
}

# A layer -> the same layer, its weight a function of new parameters.
WEIGHT_NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "wn": parametrizations.weight_norm,
    "sn": parametrizations.spectral_norm,
}
