"""The table from a model's name to its class, and `build`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nodebench.data.dataset import Data
from nodebench.data.trajectory import Trajectory
from nodebench.errors import InputError
from nodebench.models.conv import conv_network
from nodebench.models.mlp import mlp
from nodebench.models.plain import PlainOdeNet
from nodebench.models.staged import staged_network
from nodebench.models.text import text_network
from nodebench.models.trajectory import NeuralOdeNet
from nodebench.part import import_part
from nodebench.seeds import stream
from nodebench.spec import TrialSpec
from nodebench.tensorfile import read_tensors
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
    """A spec's network for data of this shape, with the weights that it begins with.

    Raises:
        InputError: if these are in a file that does not fit.
    """
    factory = MODELS.get(spec.model.name) or import_part(spec.model.name)
    with torch.random.fork_rng():
        torch.manual_seed(stream(spec.seed, "weights"))
        model: nn.Module = factory(spec, data)
    if spec.weights is not None:
        _read_weights(model, Path(spec.weights))
    return model


def _read_weights(model: nn.Module, path: Path) -> None:
    try:
        values = read_tensors(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"weights `{path}`: cannot be read ({error}). Give a file that torch.save made of a "
            "`state_dict`, or a trial's checkpoint"
        ) from error
    is_checkpoint = isinstance(values, dict) and isinstance(values.get("model"), dict)
    found = values["model"] if is_checkpoint else values
    found = _named_as(model, found) if isinstance(found, dict) else {}
    if wrong := _misfits(model.state_dict(), found):
        raise InputError("\n  ".join([f"weights `{path}` are not this network's:", *wrong]))
    model.load_state_dict(found)


def _named_as(model: nn.Module, found: Mapping[str, Any]) -> dict[str, Any]:
    """A state whose plain names, as `0.weight`, are those of folded layers where these stand."""
    plain = {
        name.replace("parametrizations.", "").removesuffix(".original"): name
        for name in model.state_dict()
        if name.endswith(".original")
    }
    return {plain.get(name, name): value for name, value in found.items()}


def _misfits(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What of a state is missing, of another shape, or not the network's."""
    missing = [f"`{name}` is missing" for name in wanted if name not in found]
    unknown = [f"`{name}` is not in the network" for name in found if name not in wanted]
    shapes = [
        f"`{name}` is {list(found[name].shape)}, should be {list(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    return missing + shapes + unknown


def parameter_count(model: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
