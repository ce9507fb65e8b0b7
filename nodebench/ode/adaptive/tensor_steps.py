"""Embedded Runge-Kutta steps whose time and size are tensors, for instance one per sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nodebench.ode.adaptive.extent import Extent
from nodebench.ode.steppers.stepper import RightHandSide, State, Stepper
from nodebench.ode.tableau import EmbeddedTableau


class TensorSteps(Stepper[Tensor, tuple[State, State]]):
    """Carries y and a slope, as `EmbeddedRungeKutta` does; a step of size 0 changes neither."""

    def __init__(self, tableau: EmbeddedTableau, extent: Extent):
        self.tableau, self.extent = tableau, extent

    def start(self, f: RightHandSide, t: float, y: State, /) -> tuple[State, State]:
        """The first slope is f(t, y)."""
        return y, f(self.extent.over(self.extent.number(t, y), y[0]), y)

    def step(
        self, f: RightHandSide, t: Tensor, h: Tensor, carry: tuple[State, State], /
    ) -> tuple[State, State]:
        """Returns y + h sum_i b_i k_i, and the last slope, or the old one where h is 0."""
        y, slope = carry
        after, slopes = self.tried(f, t, h, y, slope)
        return after, self.chosen(h != 0, slopes[-1], slope)

    def tried(
        self, f: RightHandSide, t: Tensor, h: Tensor, y: State, slope: State, /
    ) -> tuple[State, list[State]]:
        """Returns y + h sum_i b_i k_i, and all slopes."""
        tableau, slopes = self.tableau, [slope]
        for a, c in zip(tableau.a[1:], tableau.c[1:], strict=True):
            time = self.extent.over(t + c * h, y[0])
            slopes.append(f(time, self._moved(y, h, a, slopes)))
        return self._moved(y, h, tableau.b, slopes), slopes

    def error(self, h: Tensor, slopes: Sequence[State]) -> State:
        """The estimate of a step's error."""
        total = weighted(self.tableau.e, slopes)
        return tuple(self.extent.over(h, x) * x for x in total)

    def chosen(self, which: Tensor, one: State, other: State) -> State:
        """Selects, for each sample, `one` state where `which` is true, otherwise the `other`."""
        if not which.dim():
            return one if which else other
        masks = [which.view(-1, *(1,) * (x.dim() - 1)) for x in one]
        return tuple(map(torch.where, masks, one, other))

    def _moved(self, y: State, h: Tensor, weights: Sequence[float], slopes: list[State]) -> State:
        total = weighted(weights, slopes)
        return tuple(
            torch.addcmul(x, self.extent.over(h, x), k) for x, k in zip(y, total, strict=True)
        )


def weighted(weights: Sequence[float], slopes: Sequence[State]) -> State:
    """The weighted sum of slopes, component by component."""
    used = [(w, k) for w, k in zip(weights, slopes, strict=True) if w]
    (weight, first), *others = used
    total = tuple(weight * part for part in first)
    for weight, slope in others:
        total = tuple(x.add(k, alpha=weight) for x, k in zip(total, slope, strict=True))
    return total
