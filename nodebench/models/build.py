"""The table from a model's name to its class, and `build`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nodebench.data.dataset import Data
from nodebench.data.system import Flow
from nodebench.data.trajectory import Trajectory
from nodebench.errors import InputError
from nodebench.models.mlp import mlp
from nodebench.models.neural_ode import NeuralOdeNet, SystemNet
from nodebench.models.plain_ode import PlainOdeNet
from nodebench.models.single_stage import conv_network
from nodebench.models.staged import staged_network
from nodebench.models.vdcnn import text_network
from nodebench.models.weights import read_weights
from nodebench.spec import TrialSpec
from nodebench.spec.seed import stream
from nodebench.spec.settings import MODEL_ARGUMENTS, import_part
from nodebench.spec.vocabulary import STAGES

NETWORKS: dict[str, Callable[[TrialSpec, Any], nn.Module]] = {
    "resnet": conv_network,
    "odenet": conv_network,
    **{f"{kind}{depth}": staged_network for kind in ("resnet", "odenet") for depth in STAGES},
    "vdcnn": text_network,
    "odevdcnn": text_network,
    "mlp": mlp,
    "plainode": PlainOdeNet,
    "neuralode": NeuralOdeNet,
    "system": SystemNet,
}


def build(spec: TrialSpec, data: Data | Trajectory | Flow) -> nn.Module:
    """A spec's network for data of this shape, with its initial weights.

    Raises:
        InputError: if a weights file does not fit, or the user's own code returns no network.
    """
    factory = NETWORKS.get(spec.model.name) or import_part(spec.model.name, MODEL_ARGUMENTS)
    with torch.random.fork_rng():
        torch.manual_seed(stream(spec.seed, "weights"))
        model = factory(spec, data)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"`{spec.model.name}` gives a `{type(model).__name__}`: let it return a "
            "`torch.nn.Module`"
        )
    if spec.weights is not None:
        read_weights(model, Path(spec.weights))
    return model


def parameter_count(model: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
