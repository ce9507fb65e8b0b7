"""Taylor coefficients of functions of y(s), computed from those of y(s) order by order.

The coefficient of order k costs one application of a linear function, or about k products for any
other function. Nesting k derivatives in forward mode costs about 3ᵏ applications.

Source: Griewank, Walther 2008, *Evaluating derivatives*, 2nd edition, chapter 13; for solutions of
ODEs, Bettencourt, Johnson, Duvenaud 2019, *Taylor-mode automatic differentiation*.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Series(Protocol):
    """A function along one path: given the path's coefficients in order, it returns its own.

    A path y(s) = Σ yₖ sᵏ has the coefficients y₀, y₁, and so on. A series remembers the
    coefficients it was given, so each path needs a new series.
    """

    def __call__(self, coefficient: Tensor, /) -> Tensor:
        """The next coefficient."""


class Affine:
    """A linear map of y plus a shift that depends on s alone.

    `function` takes x and the shift's coefficient, which is None beyond the given `shifts`.
    """

    def __init__(self, function: Callable[[Tensor, Tensor | None], Tensor], *shifts: Tensor | None):
        self._function, self._shifts = function, iter(shifts)

    def __call__(self, x: Tensor, /) -> Tensor:
        """The next coefficient."""
        return self._function(x, next(self._shifts, None))


class PiecewiseLinear:
    """An activation with a slope of 1 above 0, and a slope of `below` elsewhere."""

    def __init__(self, below: float):
        self._below = below
        self._slope: Tensor | None = None

    def __call__(self, x: Tensor, /) -> Tensor:
        """The next coefficient."""
        if self._slope is None:
            self._slope = torch.where(x > 0, torch.ones_like(x), self._below)
        return x * self._slope


class Activation:
    """A function v of u with derivative w: v' = w u' gives k vₖ = Σⱼ j uⱼ wₖ₋ⱼ.

    `slope` takes the coefficients of u and v, and returns those of w.
    """

    def __init__(
        self, value: Callable[[Tensor], Tensor], slope: Callable[[Tensor, Tensor], Tensor]
    ):
        self._value, self._slope = value, slope
        self._slopes: list[Tensor] = []
        self._inner: list[Tensor] = []  # j uⱼ, from j = 1 on
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, u: Tensor, /) -> Tensor:
        """The next coefficient."""
        if self._last is None:
            v = self._value(u)
        else:
            self._slopes.append(self._slope(*self._last))
            order = len(self._slopes)
            self._inner.append(order * u)
            v = product_coefficient(self._inner, self._slopes) / order
        self._last = u, v
        return v


def sigmoidal(value: Callable[[Tensor], Tensor], constant: float, linear: float) -> Activation:
    """An activation v whose derivative is constant + linear v − v²."""
    values: list[Tensor] = []

    def slope(_u: Tensor, v: Tensor) -> Tensor:
        shift = constant if not values else 0.0
        values.append(v)
        return shift + linear * v - product_coefficient(values, values)

    return Activation(value, slope)


class Standardized:
    """Deviations from a `mean`, divided by the standard deviation of the same entries.

    With q the variance, the coefficients of r = q^(−1/2) follow from 2 q r' = −q' r.
    """

    def __init__(self, eps: float, mean: Callable[[Tensor], Tensor]):
        self._eps, self._mean = eps, mean
        self._deviations: list[Tensor] = []
        self._variances: list[Tensor] = []
        self._inverses: list[Tensor] = []

    def __call__(self, x: Tensor, /) -> Tensor:
        """The next coefficient."""
        self._deviations.append(x - self._mean(x))
        variance = self._mean(product_coefficient(self._deviations, self._deviations))
        self._inverses.append(self._inverse(variance))
        return product_coefficient(self._deviations, self._inverses)

    def _inverse(self, variance: Tensor) -> Tensor:
        order = len(self._inverses)
        if not order:
            return (variance + self._eps).rsqrt()
        self._variances.append(variance)
        shares = [(j / (2 * order) - 1) * q for j, q in enumerate(self._variances, 1)]
        return product_coefficient(shares, self._inverses) * self._inverses[0].square()


def product_coefficient(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Σ leftᵢ rightₙ₋ᵢ, the last coefficient of a product."""
    products = map(operator.mul, left, reversed(right))
    return functools.reduce(operator.add, products)


def composed(parts: Sequence[Series]) -> Series:
    """The series of functions that are applied one after the other."""
    return lambda x: functools.reduce(lambda coefficient, part: part(coefficient), parts, x)


def made_at_first(make: Callable[[Tensor], Series]) -> Series:
    """A series that is made from its first coefficient, since it depends on the shape."""
    made: list[Series] = []

    def coefficient(x: Tensor, /) -> Tensor:
        if not made:
            made.append(make(x))
        return made[0](x)

    return coefficient
