"""An ODE block on the raw input and one linear layer (Ott et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from torch import Tensor, nn

from nodebench.data.dataset import Data
from nodebench.models.block import ode_block
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

    The state is the input, with `augment_dim` components or channels of zeros.

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
        self.as_signal = settings.field == "simple"
        field = _field(settings, 1 if self.as_signal else channels)
        self.head = nn.Linear(size, data.classes)
        _initialize((field, self.head), INITIALIZATIONS[settings.init])
        if self.as_signal and size <= DENSE_POSITIONS:
            field, self.as_signal = folded(field, size), False
        self.block = ode_block(spec, autonomous(field))

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


def _field(settings: PlainOde, channels: int) -> nn.Sequential:
    """Two hidden layers of `width` between input and output of the state's own size."""
    width, act = settings.width, LayerFactory(activation=settings.activation).act
    if settings.field == "linear":
        return nn.Sequential(
            nn.Linear(channels, width), act(), nn.Linear(width, width), act(),
            nn.Linear(width, channels),
        )  # fmt: skip
    conv = nn.Conv1d if settings.field == "simple" else nn.Conv2d
    return nn.Sequential(
        conv(channels, width, 1), act(), conv(width, width, 3, padding=1), act(),
        conv(width, channels, 1),
    )  # fmt: skip
