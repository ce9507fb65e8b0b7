"""Image networks with one feature stage: `resnet` and `odenet`."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from nodebench.data.dataset import Data
from nodebench.models.block import feature_stage
from nodebench.models.dynamics import DownsamplingBlock
from nodebench.models.layers.factory import LayerFactory
from nodebench.models.layers.zero_channels import ZeroChannels
from nodebench.spec import TrialSpec
from nodebench.spec.model import ConvNetwork


def conv_network(spec: TrialSpec, data: Data) -> nn.Module:
    """Stem, feature stage, head; residual and ODE networks differ only in the feature stage.

    Shapes: [batch, channels, height, width] -> logits [batch, classes]. The stem reduces 28 x 28
    to 6 x 6. Source: Chen et al. 2018 and its re-implementations (S1, S3 of `docs/studies.md`).
    """
    settings = spec.model
    assert isinstance(settings, ConvNetwork)
    channels = settings.width + settings.augment_dim
    stem = _stem(settings, data.input_shape[0])
    if settings.augment_dim:
        stem.append(ZeroChannels(settings.augment_dim))
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            stem=stem,
            feature=feature_stage(spec, channels, space=2, activation=settings.activation),
            head=_head(settings, channels, data.classes),
        )
    )


def _stem(settings: ConvNetwork, channels: int) -> nn.Sequential:
    width, layer = settings.width, LayerFactory(settings.norm.stem, settings.activation)
    if settings.stem == "res":
        residual = LayerFactory(settings.norm.residual, settings.activation)
        blocks = (DownsamplingBlock(width, width, residual) for _ in range(2))
        return nn.Sequential(layer.conv(channels, width, 3), *blocks)
    return nn.Sequential(
        layer.conv(channels, width, 3),
        layer.norm(width),
        layer.act(),
        layer.conv(width, width, 4, stride=2, padding=1),
        layer.norm(width),
        layer.act(),
        layer.conv(width, width, 4, stride=2, padding=1),
    )


def _head(settings: ConvNetwork, channels: int, classes: int) -> nn.Sequential:
    layer = LayerFactory(settings.norm.stem, settings.activation)
    return nn.Sequential(
        layer.norm(channels),
        layer.act(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(settings.dropout),
        nn.Linear(channels, classes),
    )
