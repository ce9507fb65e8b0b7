"""The regularizer `taylor`: the integral of ‖dᴷy/dtᴷ‖² along the solution, R_K of the paper.

A solution whose K-th derivative is small is close to a polynomial in time, which an adaptive
method of order K solves in few steps.

Source: Kelly, Bettencourt, Johnson, Duvenaud 2020 (NeurIPS), equation 1 and section 3. The
authors' code takes the mean over dimensions, here it is the sum of the formula: a weight of theirs
is as many times one of ours as the state has dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nodebench.ode.regularizers.forward_mode import directional
from nodebench.ode.regularizers.regularizer import Draws, FieldCall, Integrand, Regularizer
from nodebench.spec.training import Taylor


class TaylorDerivative(Regularizer):
    """∫ ‖dᴷy/dtᴷ‖² dt; each evaluation of f takes K − 1 more."""

    def __init__(self, settings: Taylor, _draws: Draws):
        super().__init__()
        self._order = settings.order

    def integrand(self, _y0: Tensor) -> Integrand:
        """The K-th derivative."""
        return lambda f, t, y, dy: derivative(f, t, y, dy, self._order)


def derivative(f: FieldCall, t: float | Tensor, y: Tensor, dy: Tensor, order: int) -> Tensor:
    """The derivative of an `order` of the solution through (t, y), whose first one is dy.

    With the first k known, the next is dᵏ/dsᵏ at s = 0 of f along their Taylor polynomial, by k
    nested products in forward mode.
    """
    known = [dy]
    start = y.new_zeros(())
    while len(known) < order:
        along = _along(f, t, y, tuple(known))
        for _ in range(len(known)):
            along = _by_time(along)
        known.append(along(start))
    return known[-1]


def _along(
    f: FieldCall, t: float | Tensor, y: Tensor, derivatives: tuple[Tensor, ...]
) -> Callable[[Tensor], Tensor]:
    """F of time t + s along the polynomial with these derivatives at s = 0."""

    def at(s: Tensor) -> Tensor:
        moved = torch.zeros_like(y)
        for number in range(len(derivatives), 0, -1):  # Horner
            moved = (moved + derivatives[number - 1]) * (s / number)
        return f(t + s, y + moved)

    return at


def _by_time(along: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda s: directional(along, s, torch.ones_like(s))
