"""Trajectories: a system's states over time, observed with noise, and windows of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from nodebench.spec.data import Spiral
from nodebench.spec.seed import stream

SPIRAL_START = (0.6, 0.3)
DECAY, FREQUENCY = 0.1, 1.0
LENGTHS = (1.0, 5.0)  # the shortest and the longest window, in time


@dataclass(frozen=True)
class Trajectory:
    """One trajectory: `exact` states and noisy `observed` ones [points, dim] at `times` [points].

    An epoch consists of a number of random `windows` of it.
    """

    times: Tensor
    exact: Tensor
    observed: Tensor
    windows: int
    classes: int = 0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one state: (dim,)."""
        return tuple(self.exact.shape[1:])

    def to(self, device: torch.device) -> Trajectory:
        """The states on a device; times stay on the CPU, where solvers read them."""
        return replace(self, exact=self.exact.to(device), observed=self.observed.to(device))


def spiral(settings: Spiral, seed: int, _root: Path) -> Trajectory:
    """A linear spiral sink, dz/dt = W z with W = [[-0.1, -1], [1, -0.1]], from (0.6, 0.3).

    Source: `saparina/neural-ode`, which solves it by Euler's method with step 1e-3, with an error
    of 1 % at the end. Here the states are the closed form e^(-0.1 t) R(t) z0.
    """
    times = torch.linspace(0, settings.span, settings.points, dtype=torch.float64)
    x, y = SPIRAL_START
    cos, sin = torch.cos(FREQUENCY * times), torch.sin(FREQUENCY * times)
    turned = torch.stack((x * cos - y * sin, x * sin + y * cos), dim=1)
    exact = (torch.exp(-DECAY * times).unsqueeze(1) * turned).float()
    generator = torch.Generator().manual_seed(stream(seed, "data", "noise"))
    noise = settings.noise * torch.randn(exact.shape, generator=generator)
    return Trajectory(times, exact, exact + noise, settings.windows)


def windows(data: Trajectory, seed: int, epoch: int, most: int) -> Iterator[Tensor]:
    """The windows of one epoch: indices, in order, of at most `most` points in each.

    A window's length is uniform in `LENGTHS`, and its start is uniform where the longest would fit.
    Source: `saparina/neural-ode`.
    """
    generator = torch.Generator().manual_seed(stream(seed, "windows", epoch))
    first, last = float(data.times[0]), float(data.times[-1])
    shortest, longest = (min(length, last - first) for length in LENGTHS)
    for _ in range(data.windows):
        u = torch.rand(2, generator=generator, dtype=torch.float64)
        length = shortest + (longest - shortest) * u[0]
        start = first + (last - first - longest) * u[1]
        inside = ((data.times >= start) & (data.times <= start + length)).nonzero().flatten()
        chosen = torch.randperm(len(inside), generator=generator)[:most]
        yield inside[chosen].sort().values
