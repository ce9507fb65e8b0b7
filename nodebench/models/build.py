"""The table from a model's name to its class, and `build`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nodebench.data.dataset import Data
from nodebench.data.trajectory import Trajectory
from nodebench.models.conv import conv_network
from nodebench.models.mlp import mlp
from nodebench.models.plain import PlainOdeNet
from nodebench.models.staged import staged_network
from nodebench.models.text import text_network
from nodebench.models.trajectory import NeuralOdeNet
from nodebench.part import import_part
from nodebench.seeds import stream
from nodebench.spec import TrialSpec
from nodebench.vocabulary import STAGES

MODELS: dict[str, Callable[[TrialSpec, Any], nn.Module]] = {
    "resnet": conv_network,
    "odenet": conv_network,
    **{f"{kind}{depth}": staged_network for kind in ("resnet", "odenet") for depth in STAGES},
    "vdcnn": text_network,
    "odevdcnn": text_network,
    "mlp": mlp,
    "plainode": PlainOdeNet,
    "neuralode": NeuralOdeNet,
}


def build(spec: TrialSpec, data: Data | Trajectory) -> nn.Module:
    """A spec's network for data of this shape, its weights drawn from the trial's seed."""
    factory = MODELS.get(spec.model.name) or import_part(spec.model.name)
    with torch.random.fork_rng():
        torch.manual_seed(stream(spec.seed, "weights"))
        model: nn.Module = factory(spec, data)
    return model


def parameter_count(model: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
