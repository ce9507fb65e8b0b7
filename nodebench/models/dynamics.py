"""Right-hand sides f(t, y), and the residual block x + f(0, x)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodebench.models.norm import NORMS
from nodebench.vocabulary import DYNAMICS


class TimeConv(nn.Conv2d):
    """A convolution over [t; y]: time is one more input channel, the first.

    Shapes: y [batch, channels, height, width] -> the same.
    """

    def __init__(self, channels: int, bias: bool):
        super().__init__(channels + 1, channels, kernel_size=3, padding=1, bias=bias)

    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        """The convolution of y with a channel of constant t before it."""
        time = torch.ones_like(y[:, :1]) * t
        return super().forward(torch.cat((time, y), dim=1))


class Dynamics(nn.Module):
    """f(t, y) as a sequence of layers: a row of `vocabulary.DYNAMICS`.

    Shapes: y [batch, channels, height, width] -> the same.
    """

    def __init__(self, name: str, channels: int, norm: str):
        super().__init__()
        form = DYNAMICS[name]
        self.layers = nn.ModuleList()
        for layer in form.layers.split():
            if layer == "norm":
                self.layers.append(NORMS[norm](channels))
            elif layer == "act":
                self.layers.append(nn.ReLU())
            elif form.time:
                self.layers.append(TimeConv(channels, form.bias))
            else:
                conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=form.bias)
                self.layers.append(conv)

    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        for layer in self.layers:
            y = layer(t, y) if isinstance(layer, TimeConv) else layer(y)
        return y


class ResidualBlock(nn.Module):
    """x + f(0, x): one Euler step of size 1."""

    def __init__(self, f: nn.Module):
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        """A tensor of the shape of x."""
        out: Tensor = x + self.f(0.0, x)
        return out


class DownsamplingBlock(nn.Module):
    """A pre-activation residual block that halves height and width.

    Shapes: [batch, channels, height, width] -> [batch, channels, ceil(height/2), ceil(width/2)].
    Source: He et al. 2016b; the shortcut is a 1 x 1 convolution taken after norm and ReLU.
    """

    def __init__(self, channels: int, norm: str):
        super().__init__()
        self.norm1 = NORMS[norm](channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False)
        self.norm2 = NORMS[norm](channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(channels, channels, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output at half the resolution."""
        x = F.relu(self.norm1(x))
        residual = self.conv2(F.relu(self.norm2(self.conv1(x))))
        out: Tensor = residual + self.shortcut(x)
        return out
