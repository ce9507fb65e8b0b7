"""An ODE block on the raw input and one linear layer (Ott et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from torch import Tensor, nn

from nodebench.data.dataset import Data
from nodebench.models.block import moving_block
from nodebench.models.dynamics import autonomous
from nodebench.models.layers.conv_as_matrix import folded
from nodebench.models.layers.factory import LayerFactory
from nodebench.models.layers.zero_channels import ZeroChannels
from nodebench.spec import TrialSpec
from nodebench.spec.model import PlainOde
from nodebench.spec.vocabulary import DENSE_POSITIONS

INITIALIZATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda w: nn.init.normal_(w, std=0.02),
    "xavier": lambda w: nn.init.xavier_normal_(w, gain=0.02),
    "kaiming": nn.init.kaiming_normal_,
    "orthogonal": lambda w: nn.init.orthogonal_(w, gain=0.02),
}


class PlainOdeNet(nn.Module):
    """ODE block, flatten, linear layer: no stem, no norm.

    The state is the input, with `augment_dim` components or channels of zeros, and a velocity if
    the model's `motion` has one.

    Shapes: [batch, dim] or [batch, channels, height, width] -> logits [batch, classes].
    """

    def __init__(self, spec: TrialSpec, data: Data):
        super().__init__()
        settings = spec.model
        assert isinstance(settings, PlainOde)
        channels, *positions = data.input_shape
        channels += settings.augment_dim
        size = math.prod((channels, *positions))
        self.augment = ZeroChannels(settings.augment_dim)
        # One-dimensional convolutions take a vector as a signal with one channel.
        is_simple = settings.field == "simple"
        self.as_signal = is_simple and size > DENSE_POSITIONS
        own = 1 if is_simple else channels
        parts = [_field(settings, settings.field_states * own, own)]
        self.head = nn.Linear(size, data.classes)
        draw = INITIALIZATIONS[settings.init]
        _initialize((*parts, self.head), draw)
        if settings.initial_velocity == "learned":
            parts.append(_field(settings, own, own))
            _initialize(parts[1:], draw)
        if is_simple and not self.as_signal:
            parts = [folded(part, size) for part in parts]
        self.block = moving_block(spec, *map(autonomous, parts))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        y0 = self.augment(x)
        y = self.block(y0.unsqueeze(1) if self.as_signal else y0)
        out: Tensor = self.head(y.flatten(1))
        return out


def _initialize(parts: Iterable[nn.Module], draw: Callable[[Tensor], Tensor]) -> None:
    for part in parts:
        for name, parameter in part.named_parameters():
            if name.endswith("weight"):
                draw(parameter)
            else:
                nn.init.zeros_(parameter)


def _field(settings: PlainOde, inputs: int, outputs: int) -> nn.Sequential:
    """Two hidden layers of `width` between this many components, or channels."""
    width, act = settings.width, LayerFactory(activation=settings.activation).act
    if settings.field == "linear":
        return nn.Sequential(
            nn.Linear(inputs, width), act(), nn.Linear(width, width), act(),
            nn.Linear(width, outputs),
        )  # fmt: skip
    conv = nn.Conv1d if settings.field == "simple" else nn.Conv2d
    return nn.Sequential(
        conv(inputs, width, 1), act(), conv(width, width, 3, padding=1), act(),
        conv(width, outputs, 1),
    )  # fmt: skip
