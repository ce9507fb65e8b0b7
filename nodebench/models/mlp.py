"""Fully connected networks: `mlp`."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from nodebench.data.dataset import Data
from nodebench.models.layers.factory import LayerFactory
from nodebench.spec import TrialSpec
from nodebench.spec.model import Mlp


def mlp(spec: TrialSpec, data: Data) -> nn.Module:
    """Hidden layers with activations, and one layer to the logits.

    Shapes: [batch, ...] -> logits [batch, classes].
    """
    settings = spec.model
    assert isinstance(settings, Mlp)
    layer = LayerFactory(activation=settings.activation)
    sizes = (data.train.inputs[0].numel(), *settings.hidden)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), layer.act(), nn.Dropout(settings.dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], data.classes))
