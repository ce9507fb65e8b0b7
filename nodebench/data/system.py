"""Systems with known coefficients, and the states that they reach from given starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from nodebench.errors import DataError
from nodebench.spec.data import System
from nodebench.spec.seed import stream

MIXING = (
    torch.tensor(
        [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64
    )
    / 2
)
"""An orthogonal matrix: no coordinate is an eigenvector of the decay."""

TOLERANCE = 1e-12


@dataclass(frozen=True)
class Pairs:
    """The states `starts` and, some time later, `ends`, both [n, dim]."""

    starts: Tensor
    ends: Tensor

    def to(self, device: torch.device) -> Pairs:
        """The same on a device."""
        return Pairs(self.starts.to(device), self.ends.to(device))


@dataclass(frozen=True)
class Flow:
    """Pairs of states of a `system` with these `coefficients` (float64), a `span` of time apart."""

    system: str
    coefficients: Tensor
    span: float
    train: Pairs
    test: Pairs
    classes: int = 0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one state: (dim,)."""
        return tuple(self.train.starts.shape[1:])

    def to(self, device: torch.device) -> Flow:
        """The states on a device."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))


def flow(settings: System, seed: int, _root: Path) -> Flow:
    """Normally distributed starts in float32, and their ends, computed to an accuracy of 1e-10."""
    coefficients, dim = COEFFICIENTS[settings.system](settings.rate)

    def pairs(part: str, size: int) -> Pairs:
        generator = torch.Generator().manual_seed(stream(seed, "data", part))
        starts = torch.randn(size, dim, generator=generator)
        ends = _ends(settings.system, coefficients, starts.double(), settings.span)
        return Pairs(starts, ends.float())

    train, test = pairs("train", settings.train_size), pairs("test", settings.test_size)
    return Flow(settings.system, coefficients, settings.span, train, test)


def _decay(rate: float) -> tuple[Tensor, int]:
    rates = torch.tensor([rate ** (i / 3) for i in range(4)], dtype=torch.float64)
    return -MIXING @ torch.diag(rates) @ MIXING.T, 4


def _rotation(rate: float) -> tuple[Tensor, int]:
    return torch.tensor([[0.0, -rate], [rate, 0.0]], dtype=torch.float64), 2


def _van_der_pol(rate: float) -> tuple[Tensor, int]:
    return torch.tensor([rate, 1.0], dtype=torch.float64), 2


COEFFICIENTS: dict[str, Callable[[float], tuple[Tensor, int]]] = {
    "decay": _decay,
    "rotation": _rotation,
    "van-der-pol": _van_der_pol,
}
"""System -> its coefficients at a rate (a matrix [dim, dim] if it is linear) and its dimension."""


def moved_by_matrix(matrix: Tensor, starts: Tensor, span: float) -> Tensor:
    """The solution of y' = A y after a `span`: starts e^(A span)ᵀ, differentiable in both."""
    moved: Tensor = starts @ torch.matrix_exp(matrix * span).T
    return moved


def _ends(system: str, coefficients: Tensor, starts: Tensor, span: float) -> Tensor:
    if coefficients.dim() == 2:
        return moved_by_matrix(coefficients, starts, span)
    from scipy.integrate import solve_ivp

    assert system == "van-der-pol"
    rate, stiffness = coefficients.tolist()

    def slope(_t: float, flat: object) -> object:
        x, v = torch.as_tensor(flat).reshape(2, -1)
        return torch.cat((v, rate * (1 - x**2) * v - stiffness * x)).numpy()

    solved = solve_ivp(
        slope, (0.0, span), starts.T.flatten().numpy(), "DOP853", rtol=TOLERANCE, atol=TOLERANCE
    )
    if not solved.success:
        raise DataError(f"`{system}` could not be solved over a time of {span:g}: {solved.message}")
    return torch.from_numpy(solved.y[:, -1]).reshape(2, -1).T.contiguous()
