"""The sums of a solver's steps, y + h sum_i w_i k_i, over images, bit-identical to torch's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from nodebench.models.chains.images import array_for
from nodebench.models.chains.operation import Fill, Fills


class StepSums(ABC):
    """Sums that `fills` will compute, and their gradients.

    New arrays are written over the spare ones as long as there are any.
    """

    def __init__(self, fills: Fills, spares: list[Any] | None = None):
        self._fills = fills
        self._spares = [] if spares is None else spares

    @abstractmethod
    def moved(self, y: Any, h: float, weights: Sequence[float], slopes: Sequence[Any]) -> Any:
        """Returns y + h sum_i weights_i slopes_i: y itself, or a new array."""

    @abstractmethod
    def pull(self, by: Any, h: float, weights: Sequence[float], by_slopes: list[Any]) -> None:
        """Adds a sum's gradient to those of its slopes; None means no gradient."""

    def added(self, one: Any, other: Any, out: Any = None) -> Any:
        """The sum of two gradients, in a new array or over one of them."""
        if one is None or other is None:
            return one if other is None else other
        out = self._new(one) if out is None else out

        def fill(samples: tuple[int, int]) -> None:
            own = slice(*samples)
            np.add(one[own], other[own], out=out[own])

        self._fills.add(fill)
        return out

    def _pull(self, by: Any, factor: float, number: int, by_slopes: list[Any]) -> None:
        scaled, total = self._scaled(by, factor), by_slopes[number]
        by_slopes[number] = scaled if total is None else self.added(total, scaled, total)

    def _scaled(self, array: Any, factor: float) -> Any:
        out, factor = self._new(array), array.dtype.type(factor)

        def fill(samples: tuple[int, int]) -> None:
            own = slice(*samples)
            np.multiply(array[own], factor, out=out[own])

        self._fills.add(fill)
        return out

    def _add_multiple(self, out: Any, y: Any, slope: Any, factor: float) -> None:
        """Adds a fill of an array with y + factor slope, rounded once."""
        self._fills.add(_adding(out, y, slope, factor))

    def _new(self, like: Any) -> Any:
        return array_for(like.shape, like, self._spares.pop() if self._spares else None)


class FixedSums(StepSums):
    """Sums in the order of `ode/fixed.py`: one slope after the other, times h w_i."""

    def moved(self, y: Any, h: float, weights: Sequence[float], slopes: Sequence[Any]) -> Any:
        """Returns y + h sum_i weights_i slopes_i: y itself, or a new array."""
        out = y
        for weight, slope in zip(weights, slopes, strict=True):
            if weight:
                before, out = out, self._new(y) if out is y else out
                self._add_multiple(out, before, slope, h * weight)
        return out

    def pull(self, by: Any, h: float, weights: Sequence[float], by_slopes: list[Any]) -> None:
        """Adds a sum's gradient to those of its slopes."""
        for number, weight in enumerate(weights):
            if weight and by is not None:
                self._pull(by, h * weight, number, by_slopes)


class EmbeddedSums(StepSums):
    """Sums in the order of `ode/adaptive/tensor_steps.py`: the weighted slopes, then times h."""

    def moved(self, y: Any, h: float, weights: Sequence[float], slopes: Sequence[Any]) -> Any:
        """Returns y + h sum_i weights_i slopes_i, in a new array."""
        used = [(w, k) for w, k in zip(weights, slopes, strict=True) if w]
        (weight, first), *others = used
        out = self._scaled(first, weight)
        for weight, slope in others:
            self._add_multiple(out, out, slope, weight)
        self._add_multiple(out, y, out, h)
        return out

    def pull(self, by: Any, h: float, weights: Sequence[float], by_slopes: list[Any]) -> None:
        """Adds a sum's gradient to those of its slopes."""
        if by is None:
            return
        by = self._scaled(by, h)
        for number, weight in enumerate(weights):
            if weight:
                self._pull(by, weight, number, by_slopes)


def _adding(out: Any, y: Any, slope: Any, factor: float) -> Fill:
    from nodebench.models.chains.sum_kernels import add_multiple  # numba takes a second

    own_factor = y.dtype.type(factor)

    def fill(samples: tuple[int, int]) -> None:
        add_multiple(samples, out, y, slope, own_factor)

    return fill
