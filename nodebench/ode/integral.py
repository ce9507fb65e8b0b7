"""An integral along a solve: dq/dt = g(t, y, dy/dt), carried along with the state.

It is solved with the state, at no more evaluations of f, and any gradient goes through it. An
adaptive method controls its error too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from nodebench.ode.field import Field, slope

Integrand: TypeAlias = Callable[[float | Tensor, Tensor, Tensor], Tensor]
"""(t, y, dy/dt) -> one number per sample, of shape [batch]."""


class Integral(NamedTuple):
    """What is integrated, and `found`: its integral over each solve, of shape [batch]."""

    integrand: Integrand
    found: list[Tensor]


class WithIntegral(Field):
    """The right-hand side of state and integral together, of shape [batch, numbers + 1]."""

    takes_rows = False

    def __init__(self, f: nn.Module, integrand: Integrand, y0: Tensor):
        super().__init__()
        self.f, self.integrand, self.shape = f, integrand, y0.shape

    def forward(self, t: float | Tensor, both: Tensor) -> Tensor:
        """(dy/dt, dq/dt), a row per sample."""
        y = both[:, :-1].reshape(self.shape)
        if isinstance(t, Tensor) and t.dim():  # of each sample
            t = t.reshape(-1, *(1,) * (y.dim() - 1))
        dy = slope(self.f, t, y)
        return torch.cat([dy.flatten(1), self.integrand(t, y, dy).unsqueeze(1)], 1)

    def start(self, y0: Tensor) -> Tensor:
        """The state, and an integral of 0."""
        return torch.cat([y0.flatten(1), y0.new_zeros(len(y0), 1)], 1)

    def apart(self, states: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """The states alone, and the integral at the last of them."""
        return [both[:, :-1].reshape(self.shape) for both in states], states[-1][:, -1]
