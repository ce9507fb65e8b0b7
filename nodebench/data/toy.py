"""Generated data."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from nodebench.data.dataset import Data, Split
from nodebench.data_settings import Spheres
from nodebench.seeds import stream

# (inner radius, outer radius, class) of each shell; Ott et al. 2021.
SHELLS = ((0.10, 0.15, 0), (0.25, 0.30, 1), (0.40, 0.45, 0))


def spheres(settings: Spheres, seed: int, _root: Path) -> Data:
    """Points on concentric spheres, classes in alternation: inputs [n, dim].

    Source: Ott et al. 2021, whose radii are r_min + (r_max - r_min) u^(1/dim).
    """

    def split(name: str, size: int) -> Split | None:
        if not size:
            return None
        generator = torch.Generator().manual_seed(stream(seed, "data", name))
        return _shells(size, settings.dim, generator)

    train, test = split("train", settings.train_size), split("test", settings.test_size)
    assert train
    assert test
    return Data(train, test, split("validation", settings.val_size), classes=2)


def _shells(size: int, dim: int, generator: torch.Generator) -> Split:
    points: list[Tensor] = []
    labels: list[Tensor] = []
    bounds = [0, size // 4, size - size // 4, size]
    for (inner, outer, label), (start, end) in zip(SHELLS, pairwise(bounds), strict=True):
        count = end - start
        direction = torch.randn(count, dim, generator=generator)
        direction /= direction.norm(dim=1, keepdim=True)
        radius = inner + (outer - inner) * torch.rand(count, 1, generator=generator) ** (1 / dim)
        points.append(direction * radius)
        labels.append(torch.full((count,), label))
    return Split(torch.cat(points), torch.cat(labels))
