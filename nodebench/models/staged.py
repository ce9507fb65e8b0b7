"""Image networks in stages of growing width: `resnet4` ... `odenet34`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from torch import nn

from nodebench.data.dataset import Data
from nodebench.models.block import ode_block
from nodebench.models.dynamics import DownsamplingBlock, Dynamics, ResidualBlock
from nodebench.models.layers.factory import LayerFactory
from nodebench.spec import TrialSpec
from nodebench.spec.model import StagedNetwork


def staged_network(spec: TrialSpec, data: Data) -> nn.Module:
    """A 3 x 3 convolution, stages of residual then ODE blocks, the mean over space, one layer.

    Shapes: [batch, channels, height, width] -> logits [batch, classes]. Every stage but the first
    doubles the width and halves the resolution. Source: Gusak et al. 2020 (S4).
    """
    settings = spec.model
    assert isinstance(settings, StagedNetwork)
    widest = settings.width * 2 ** (len(settings.stages) - 1)
    layer = LayerFactory(settings.norm.stem, settings.activation.stem)
    stem = nn.Sequential(layer.conv(data.input_shape[0], settings.width, 3, padding=1, bias=False))
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(settings.dropout),
        nn.Linear(widest, data.classes),
    )
    if settings.order == "postact":
        stem.extend([layer.norm(settings.width), layer.act()])
    else:
        head = nn.Sequential(layer.norm(widest), layer.act(), *head)
    feature = nn.Sequential(*_blocks(spec, settings))
    return nn.Sequential(OrderedDict[str, nn.Module](stem=stem, feature=feature, head=head))


def _blocks(spec: TrialSpec, settings: StagedNetwork) -> Iterator[nn.Module]:
    residual = LayerFactory(settings.norm.residual, settings.activation.residual)
    ode = LayerFactory(settings.norm.ode, settings.activation.ode)
    channels = settings.width
    for number, (residuals, odes) in enumerate(settings.stages):
        for position in range(residuals):
            widens = number > 0 and position == 0
            yield _residual_block(settings.order, channels, residual, widens=widens)
            channels *= 2 if widens else 1
        for _ in range(odes):
            yield ode_block(spec, Dynamics(settings.order, channels, ode))


def _residual_block(order: str, channels: int, layer: LayerFactory, *, widens: bool) -> nn.Module:
    """A block that keeps the shape, or doubles the width and halves the resolution."""
    if order == "preact":
        if widens:
            return DownsamplingBlock(channels, 2 * channels, layer)
        return ResidualBlock(Dynamics("preact", channels, layer))
    if not widens:
        return ResidualBlock(Dynamics("original", channels, layer), after=layer.act())
    shortcut = nn.Sequential(
        layer.conv(channels, 2 * channels, 1, stride=2, bias=False), layer.norm(2 * channels)
    )
    f = Dynamics("original", channels, layer, outputs=2 * channels, stride=2)
    return ResidualBlock(f, shortcut, after=layer.act())
