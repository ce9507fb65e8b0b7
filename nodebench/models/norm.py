"""Normalisation layers by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "gn": lambda channels: nn.GroupNorm(min(32, channels), channels),
    "bn": nn.BatchNorm2d,
    "ln": lambda channels: nn.GroupNorm(1, channels),
    "in": nn.InstanceNorm2d,
    "nf": lambda _channels: nn.Identity(),
}
