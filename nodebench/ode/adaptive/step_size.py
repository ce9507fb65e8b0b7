"""The size of the first step, and of each following one."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebench.ode.adaptive.extent import Extent
from nodebench.ode.steppers.stepper import RightHandSide, State
from nodebench.spec.solver import Control, Solver
from nodebench.spec.vocabulary import CONTROLLERS

SMALLEST_ERROR = 1e-4
"""The smallest error that a proportional part remembers (Hairer, Nørsett, Wanner's dopri5.f)."""


class Controller:
    """Computes the factor from one step size to the next, given the step's error.

    The factor after a rejected step does not use the previous error. Like torchdiffeq's, the `i`
    controller does not shrink an accepted step.

    Source: Hairer, Nørsett, Wanner 1993, II.4; Gustafsson 1991; Söderlind 2002.
    """

    def __init__(self, control: Control, order: int):
        self._control, self._order = control, order
        self._integral, self._proportional, _ = CONTROLLERS[control.controller]

    def factor(self, error: Tensor, before: Tensor, accepted: Tensor) -> Tensor:
        """The factor, from errors relative to the tolerance; minimal if `error` is not finite.

        `before` is the error of the previous accepted step, 1 if there is none.
        """
        control, order = self._control, self._order
        taken = error ** (-(self._integral + self._proportional) / order)
        taken = taken * before ** (self._proportional / order)
        found = control.safety * torch.where(accepted, taken, error ** (-1 / order))
        least = torch.full_like(found, control.min_factor)
        if not self._proportional:
            least = torch.where(error < 1, 1.0, least)
        found = torch.minimum(torch.maximum(found, least), found.new_tensor(control.max_factor))
        return torch.where(error.isfinite(), found, control.min_factor)

    def remembered(self, error: Tensor, before: Tensor, accepted: Tensor) -> Tensor:
        """The value of `before` for the next step."""
        if not self._proportional:
            return before
        return torch.where(accepted, error.clamp(min=SMALLEST_ERROR), before)


@torch.no_grad()
def first_size(
    f: RightHandSide, t: Tensor, y: State, slope: State, solver: Solver, extent: Extent, sign: int
) -> Tensor:
    """The size of the first step, positive, at the cost of one more evaluation.

    Source: Hairer, Nørsett, Wanner 1993, II.4, as in torchdiffeq.
    """
    rtol, atol = solver.tolerances
    scale = tuple(atol + rtol * part.abs() for part in y)

    def size(state: State) -> Tensor:
        return extent.size(tuple(x / s for x, s in zip(state, scale, strict=True)))

    d0, d1 = size(y), size(slope)
    h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
    ahead = tuple(x + sign * extent.over(h0, x) * k for x, k in zip(y, slope, strict=True))
    later = f(extent.over(t + sign * h0, y[0]), ahead)
    d2 = size(tuple(b - a for a, b in zip(slope, later, strict=True))) / h0
    assert solver.order is not None
    h1 = (0.01 / torch.maximum(d1, d2)) ** (1 / solver.order)
    is_still = (d1 <= 1e-15) & (d2 <= 1e-15)
    h1 = torch.where(is_still, (h0 * 1e-3).clamp(min=1e-6), h1)
    return torch.minimum(100 * h0, h1).double()
