"""Right-hand sides f(t, y), and the residual block x + f(0, x)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nodebench.models.place import Place
from nodebench.vocabulary import DYNAMICS


class TimeConv(nn.Module):
    """A convolution over [t; y]: time is one more input channel, the first.

    Shapes: y [batch, channels, ...] -> [batch, the convolution's outputs, ...].
    """

    def __init__(self, conv: nn.Module):
        super().__init__()
        self.conv = conv

    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        """The convolution of y with a channel of constant t before it."""
        time = torch.ones_like(y[:, :1]) * t
        out: Tensor = self.conv(torch.cat((time, y), dim=1))
        return out


class Dynamics(nn.Module):
    """f(t, y) as a sequence of layers: a row of `vocabulary.DYNAMICS`.

    As the right-hand side of an ODE it keeps the shape; in a residual block between two stages,
    its first convolution has `outputs` filters and a stride.
    Shapes: y [batch, channels, ...] -> [batch, outputs, .../stride].
    """

    def __init__(
        self, name: str, channels: int, place: Place, outputs: int | None = None, stride: int = 1
    ):
        super().__init__()
        form = DYNAMICS[name]
        self.layers = nn.ModuleList()
        for layer in form.layers.split():
            if layer == "norm":
                self.layers.append(place.norm(channels))
            elif layer == "act":
                self.layers.append(place.act())
            else:
                inputs, channels = channels + form.time, outputs or channels
                conv = place.conv(inputs, channels, 3, stride=stride, padding=1, bias=form.bias)
                self.layers.append(TimeConv(conv) if form.time else conv)
                stride = 1

    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        for layer in self.layers:
            y = layer(t, y) if isinstance(layer, TimeConv) else layer(y)
        return y


class Autonomous(nn.Module):
    """f(t, y) = g(y)."""

    def __init__(self, g: nn.Module):
        super().__init__()
        self.g = g

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        out: Tensor = self.g(y)
        return out


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

    def __init__(self, channels: int, outputs: int, place: Place):
        super().__init__()
        self.before = nn.Sequential(place.norm(channels), place.act())
        self.residual = nn.Sequential(
            place.conv(channels, outputs, 3, stride=2, padding=1, bias=False),
            place.norm(outputs),
            place.act(),
            place.conv(outputs, outputs, 3, padding=1, bias=False),
        )
        self.shortcut = place.conv(channels, outputs, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output at half the resolution."""
        x = self.before(x)
        out: Tensor = self.residual(x) + self.shortcut(x)
        return out
