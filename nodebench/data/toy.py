"""Generated data."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nodebench.data.dataset import Data, Split
from nodebench.spec.data import Generated, Spheres, ThreeMinima
from nodebench.spec.seed import stream

# (inner radius, outer radius, class) of each shell; Ott et al. 2021.
SHELLS = ((0.10, 0.15, 0), (0.25, 0.30, 1), (0.40, 0.45, 0))

# The force on the particle is -V'(x); coefficients from x^5 down to 1. Ott et al. 2021.
SLOPE = (1.2, -2.5, -0.768, 2.364, 0.176, -0.192)
FRICTION = 0.2
MINIMA = (-0.850, 0.269, 1.839)

Array = NDArray[np.float64]
Parts = list[tuple[int, torch.Generator]]
"""The size of each split, and the generator of its random numbers."""


def spheres(settings: Spheres, seed: int, _root: Path) -> Data:
    """Points on concentric spheres with alternating classes: inputs [n, dim] float32.

    Source: Ott et al. 2021, whose radii are r_min + (r_max - r_min) u^(1/dim).
    """

    def draw(parts: Parts) -> list[Split]:
        return [_shells(size, settings.dim, generator) for size, generator in parts]

    return _drawn(settings, seed, draw, ("0", "1"))


def three_minima(settings: ThreeMinima, seed: int, _root: Path) -> Data:
    """Starts (x, v) of a damped particle in a potential with three minima: inputs [n, 2] float32.

    x is uniform in [-1, 2], v in [-2, 2]; the class is the minimum, from left to right, in which
    the particle comes to rest. Source: Ott et al. 2021.
    """
    names = tuple(f"{minimum:.3f}" for minimum in MINIMA)
    return _drawn(settings, seed, _starts, names)


def settle(start: Array, step: float = 0.02, end: float = 100.0) -> Array:
    """The states [n, 2] (position, velocity) of particles at time `end`, by the classic RK4."""
    y = start.T.copy()
    for _ in range(round(end / step)):
        k1 = _motion(y)
        k2 = _motion(y + step / 2 * k1)
        k3 = _motion(y + step / 2 * k2)
        k4 = _motion(y + step * k3)
        y += step / 6 * (k1 + 2 * (k2 + k3) + k4)
    return y.T


def _motion(y: Array) -> Array:
    """(x', v') of (x, v) [2, n]: x'' = -V'(x) - 0.2 x'."""
    x, v = y
    slope = np.full_like(x, SLOPE[0])
    for coefficient in SLOPE[1:]:
        slope *= x
        slope += coefficient
    change = np.empty_like(y)  # a quarter faster than stacking the two
    change[0], change[1] = v, -slope - FRICTION * v
    return change


def _starts(parts: Parts) -> list[Split]:
    """Splits whose particles all move together: a step takes nearly as long for one as for many."""
    inputs = torch.cat([torch.rand(size, 2, generator=generator) for size, generator in parts])
    inputs = inputs * torch.tensor([3.0, 4.0]) - torch.tensor([1.0, 2.0])
    # From the float32 inputs, so that the labels belong to exactly these.
    rest = settle(inputs.double().numpy())[:, 0]
    labels = torch.from_numpy(np.abs(rest[:, None] - np.array(MINIMA)).argmin(axis=1))
    ends = [*accumulate(size for size, _ in parts)][:-1]
    splits = zip(inputs.tensor_split(ends), labels.tensor_split(ends), strict=True)
    return [Split(x.clone(), y.clone()) for x, y in splits]


def _drawn(
    settings: Generated,
    seed: int,
    draw: Callable[[Parts], list[Split]],
    class_names: tuple[str, ...],
) -> Data:
    """The splits, each from its own stream, so that the size of one does not affect the others."""
    sizes = {"train": settings.train_size, "test": settings.test_size}
    if settings.val_size:
        sizes["validation"] = settings.val_size
    streams = [torch.Generator().manual_seed(stream(seed, "data", name)) for name in sizes]
    train, test, *more = draw(list(zip(sizes.values(), streams, strict=True)))
    validation = more[0] if more else None
    return Data(train, test, validation, len(class_names), class_names=class_names)


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
