"""The table from a model's name to its class, and `build`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from nodebench.data.dataset import Data
from nodebench.models.resnet import ConvNet
from nodebench.models.toy import PlainOdeNet
from nodebench.part import import_part
from nodebench.seeds import stream
from nodebench.spec import TrialSpec

MODELS: dict[str, Callable[[TrialSpec, Data], nn.Module]] = {
    "resnet": ConvNet,
    "odenet": ConvNet,
    "plainode": PlainOdeNet,
}


def build(spec: TrialSpec, data: Data) -> nn.Module:
    """A spec's network for data of this shape, its weights drawn from the trial's seed."""
    factory = MODELS.get(spec.model.name) or import_part(spec.model.name)
    with torch.random.fork_rng():
        torch.manual_seed(stream(spec.seed, "weights"))
        model: nn.Module = factory(spec, data)
    return model


def parameter_count(model: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
