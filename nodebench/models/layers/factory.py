"""The layers in one place of a network: its norm, weight norm and activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.utils import parametrizations

from nodebench.models.layers.conv import Conv2d
from nodebench.models.layers.group_norm import GroupNorm
from nodebench.spec.vocabulary import norm_parts

# (channels, dimensions of space) -> a layer.
NORM_LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "gn": lambda channels, _space: GroupNorm(min(32, channels), channels),
    "bn": lambda channels, space: (nn.BatchNorm1d, nn.BatchNorm2d)[space - 1](channels),
    "ln": lambda channels, _space: GroupNorm(1, channels),
    "in": lambda channels, space: (nn.InstanceNorm1d, nn.InstanceNorm2d)[space - 1](channels),
    "nf": lambda _channels, _space: nn.Identity(),
}

# A layer -> the same layer, its weight a function of new parameters.
WEIGHT_NORM_LAYERS: dict[str, Callable[[nn.Module], Any]] = {
    "wn": parametrizations.weight_norm,
    "sn": parametrizations.spectral_norm,
}

ACTIVATION_LAYERS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "none": nn.Identity,
}


@dataclass(frozen=True)
class LayerFactory:
    """Makes the layers of one place: stem, residual blocks or ODE blocks.

    `norm_word` is one of `vocabulary.NORM_WORDS`; None means no norm. `space` is the number of
    dimensions in addition to batch and channels: 1 for text, 2 for images.
    """

    norm_word: str | None = None
    activation: str | None = "relu"
    space: int = 2

    def conv(
        self, inputs: int, outputs: int, kernel: int, **settings: Any
    ) -> nn.Conv1d | nn.Conv2d:
        """A convolution, under the weight norm if there is one."""
        conv = (nn.Conv1d, Conv2d)[self.space - 1](inputs, outputs, kernel, **settings)
        weight_norm = norm_parts(self.norm_word or "nf")[1]
        return WEIGHT_NORM_LAYERS[weight_norm](conv) if weight_norm else conv

    def norm(self, channels: int) -> nn.Module:
        """A norm."""
        return NORM_LAYERS[norm_parts(self.norm_word or "nf")[0]](channels, self.space)

    def act(self) -> nn.Module:
        """An activation."""
        return ACTIVATION_LAYERS[self.activation or "none"]()
