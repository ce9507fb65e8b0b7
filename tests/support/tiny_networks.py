"""Specs and data of the right shapes, for tests of networks."""

from __future__ import annotations

import torch
from torch import nn

from nodebench.data.dataset import Data, Split
from nodebench.models.build import build, parameter_count
from nodebench.spec import TrialSpec

MNIST, CIFAR10, DIGITS = (1, 28, 28), (3, 32, 32), (1, 16, 16)


def data(*shape: int, classes: int = 10) -> Data:
    split = Split(torch.zeros(2, *shape), torch.zeros(2, dtype=torch.int64))
    return Data(split, split, None, classes)


def spec(seed: int = 0, **model: object) -> TrialSpec:
    kind = "mnist"
    if model["name"] == "plainode" and model.get("field") != "conv":
        kind = "spheres"
    elif "vdcnn" in str(model["name"]):
        kind = "agnews"
    return TrialSpec(
        data=kind,
        model=model,
        solver={"method": "euler", "steps": 1},
        seed=seed,
    )


def count(shape: tuple[int, ...], **model: object) -> int:
    return parameter_count(build(spec(**model), data(*shape)))


def built(shape: tuple[int, ...] = CIFAR10, **model: object) -> nn.Module:
    return build(spec(**model), data(*shape))
