"""The regularizer `taylor`: the integral of ‖dᴷy/dtᴷ‖² along the solution, R_K of the paper.

A solution whose K-th derivative is small is close to a polynomial in time, which an adaptive
method of order K solves in few steps.

Source: Kelly, Bettencourt, Johnson, Duvenaud 2020 (NeurIPS), equation 1 and section 3. The
authors' code takes the mean over dimensions; here it is the sum, as in the formula. An equivalent
weight of theirs is ours times the number of dimensions of the state.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nodebench.ode.regularizers.field_call import FieldCall
from nodebench.ode.regularizers.forward_mode import directional
from nodebench.ode.regularizers.regularizer import Draws, Integrand, Regularizer
from nodebench.spec.training import Taylor


class TaylorDerivative(Regularizer):
    """∫ ‖dᴷy/dtᴷ‖² dt; each evaluation of f costs K − 1 more."""

    def __init__(self, settings: Taylor, _draws: Draws):
        super().__init__()
        self._order = settings.order

    def integrand(self, _y0: Tensor) -> Integrand:
        """The K-th derivative."""
        return lambda f, t, y, dy: derivative(f, t, y, dy, self._order)


def derivative(f: FieldCall, t: float | Tensor, y: Tensor, dy: Tensor, order: int) -> Tensor:
    """The derivative of a given `order` of the solution through (t, y), whose first one is dy.

    It is computed from Taylor coefficients if f's layers have rules: y' = f gives k yₖ = fₖ₋₁.
    """
    next_coefficient = f.series(t, 1.0)
    if next_coefficient is None:
        return _nested(f, t, y, dy, order)
    for k in range(1, order + 1):
        y = next_coefficient(y) / k
    return math.factorial(order) * y


def _nested(f: FieldCall, t: float | Tensor, y: Tensor, dy: Tensor, order: int) -> Tensor:
    """The same by nested forward mode.

    The k-th derivative of f along the solution is a function of t, y and the solution's first k
    derivatives. The time derivative of each is the next one, so each order takes one more product.
    """
    time = t if isinstance(t, Tensor) else y.new_full((), t)
    known = [dy]
    along: Callable[..., Tensor] = f
    while len(known) < order:
        along = _by_time(along)
        known.append(along(time, y, *known))
    return known[-1]


def _by_time(along: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The time derivative of a function of t, y and the solution's first k derivatives."""

    def derived(t: Tensor, y: Tensor, *derivatives: Tensor) -> Tensor:
        return directional(along, (t, y, *derivatives[:-1]), (torch.ones_like(t), *derivatives))

    return derived
