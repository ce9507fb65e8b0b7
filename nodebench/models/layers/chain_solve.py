"""Fixed steps of an ODE whose right-hand side is a chain, as one operation of autograd.

Each thread takes its samples through several evaluations before it waits for the others, and torch
does nothing in between. States and gradients have the bits of steps that torch takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from nodebench.models.layers.chain import Chain
from nodebench.models.layers.computation import Computation, Kept, computed
from nodebench.models.layers.images import array_for
from nodebench.models.layers.operation import Fills, LayerGradients
from nodebench.ode.fixed import RungeKutta, steps
from nodebench.ode.tableau import Tableau

TOGETHER = 8
"""The evaluations after which threads wait for each other: an interrupt waits for as many."""


def solve_by_chain(
    chain: Chain,
    y0: Tensor,
    grids: Iterable[Iterable[float]],
    tableau: Tableau,
    on_evaluations: Callable[[int], None],
) -> list[Tensor]:
    """The state at the end of each grid of times.

    Shapes: y0 [batch, channels, height, width], for which `are_compiled` holds.
    """
    return computed(_ChainSolve(chain, grids, tableau, on_evaluations), y0)


class _ChainSolve(Computation):
    """The states at the ends of some grids."""

    def __init__(
        self,
        chain: Chain,
        grids: Iterable[Iterable[float]],
        tableau: Tableau,
        on_evaluations: Callable[[int], None],
    ):
        self.chain, self.tableau, self.weights = chain, tableau, chain.weights
        self._grids, self._on_evaluations = grids, on_evaluations
        self._taken: list[list[tuple[float, float]]] = []
        """The steps (t, h) of each grid."""

    def outputs(self, x: Any, kept: Kept | None) -> list[Any]:
        """The states at the ends."""
        forward, states = _Forward(self, len(x), kept, self._on_evaluations), [x]
        for grid in self._grids:
            self._taken.append([])
            y = states[-1]
            for t, h in steps(grid):
                self._taken[-1].append((t, h))
                before, y = y, forward.step(t, h, y)
                if before is not states[-1]:
                    forward.leave(before)
            states.append(y)
        forward.fills.run()
        return states[1:]

    def pull(
        self, by_outputs: Sequence[Any], kept: Kept, needed: Sequence[bool]
    ) -> tuple[Any, LayerGradients]:
        """The gradients of y0 and of all weights."""
        backward = _Backward(self, kept, needed[1:])
        of_starts = [None, *by_outputs[:-1]]
        by = by_outputs[-1]
        for taken, of_start in reversed(list(zip(self._taken, of_starts, strict=True))):
            for t, h in reversed(taken[1:]):
                by = backward.step(t, h, by)
            by = backward.step(*taken[0], by, of_start)
        backward.fills.run()
        return by if needed[0] else None, backward.by_weights

    def by_torch(self, x: Tensor, weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """The states by torch."""

        def f(t: Any, y: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (self.chain.by_torch(t, y[0], weights),)

        stepper, carry, states = RungeKutta(self.tableau), ((x,),), list[Tensor]()
        for taken in self._taken:
            for t, h in taken:
                carry = stepper.step(f, t, h, carry)
            states.append(carry[0][0])
        return states


class _Forward:
    """A solve on its way: what fills its arrays, and those that are no longer in use."""

    def __init__(
        self,
        solve: _ChainSolve,
        samples: int,
        kept: Kept | None,
        on_evaluations: Callable[[int], None],
    ):
        self.fills = Fills(samples)
        self._chain, self._tableau, self._kept = solve.chain, solve.tableau, kept
        self._on_evaluations = on_evaluations
        self._evaluations = 0
        self._spares: list[Any] = []

    def step(self, t: float, h: float, y: Any) -> Any:
        """The state after a step from y."""
        slopes: list[Any] = []
        for a, c in zip(self._tableau.a, self._tableau.c, strict=True):
            stage = self._moved(y, h, a, slopes)
            slopes.append(self._slope(t + c * h, stage))
            if stage is not y:
                self.leave(stage)
        after = self._moved(y, h, self._tableau.b, slopes)
        for slope in slopes:
            self.leave(slope)
        return after

    def leave(self, array: Any) -> None:
        """Lets later ones take the place of an array, if nothing is kept for the gradient."""
        if self._kept is None:
            self._spares.append(array)

    def _slope(self, t: float, y: Any) -> Any:
        self._on_evaluations(1)
        slope = self._chain.output(t, y, self.fills, self._kept, self._spares)
        self._evaluations += 1
        if self._evaluations % TOGETHER == 0:
            self.fills.run()
        return slope

    def _moved(self, y: Any, h: float, weights: Sequence[float], slopes: Sequence[Any]) -> Any:
        """Y + h sum_i weights_i slopes_i: y itself, or a new array."""
        out = y
        for weight, slope in zip(weights, slopes, strict=True):
            if weight:
                before = out
                if out is y:
                    out = array_for(y.shape, y, self._spares.pop() if self._spares else None)
                self.fills.add(_moving(out, before, slope, h * weight))
        return out


class _Backward:
    """A solve on its way back: what fills its arrays, and the weights' gradients until now."""

    def __init__(self, solve: _ChainSolve, kept: Kept, needed: Sequence[bool]):
        self.by_weights: list[Tensor | None] = [None] * len(needed)
        self._chain, self._tableau, self._kept = solve.chain, solve.tableau, kept
        self._needed = (True, *needed)
        self.fills = Fills(len(kept[0][0]))

    def step(self, t: float, h: float, by: Any, of_start: Any = None) -> Any:
        """The gradient of the state before the last of the remaining steps, from that after it.

        `of_start` is what of it does not come through the step. Sums are in autograd's order.
        """
        a, c, tableau = self._tableau.a, self._tableau.c, self._tableau
        by_slopes: list[Any] = [None] * len(c)
        total = by if of_start is None else self._sum(of_start, by)
        self._spread(by, h, tableau.b, by_slopes)
        for stage in reversed(range(len(c))):
            kept = [self._kept.pop() for _ in self._chain.operations][::-1]
            if by_slopes[stage] is not None:
                by_stage = self._pulled(t + c[stage] * h, by_slopes[stage], kept)
                self._spread(by_stage, h, a[stage], by_slopes)
                total = self._sum(total, by_stage, by_stage)
        return total

    def _pulled(self, t: float, by_slope: Any, kept: Kept) -> Any:
        """The gradient of an evaluation's input; those of the weights are added up."""
        by_x, by_weights = self._chain.pull(t, by_slope, kept, self._needed, self.fills)
        for number, found in enumerate(by_weights):
            total = self.by_weights[number]
            if total is None or found is None:
                self.by_weights[number] = found
            else:
                total.add_(found)
        return by_x

    def _spread(self, by: Any, h: float, weights: Sequence[float], by_slopes: list[Any]) -> None:
        """Adds to the slopes' gradients what comes through y + h sum_i weights_i slopes_i."""
        if by is None:
            return
        for number, weight in enumerate(weights):
            if weight:
                scaled, total = array_for(by.shape, by), by_slopes[number]
                self.fills.add(_scaling(scaled, by, h * weight))
                by_slopes[number] = scaled if total is None else self._sum(total, scaled, total)

    def _sum(self, one: Any, other: Any, out: Any = None) -> Any:
        """Their sum, in a new array or in one of them; None is no gradient."""
        if one is None or other is None:
            return one if other is None else other
        out = array_for(one.shape, one) if out is None else out

        def fill(samples: tuple[int, int]) -> None:
            own = slice(*samples)
            np.add(one[own], other[own], out=out[own])

        self.fills.add(fill)
        return out


def _moving(out: Any, y: Any, slope: Any, factor: float) -> Callable[[tuple[int, int]], None]:
    """What fills an array with y + factor slope, rounded once, as torch does it."""
    from nodebench.models.layers.step_kernels import add_multiple  # numba takes a second

    own_factor = y.dtype.type(factor)

    def fill(samples: tuple[int, int]) -> None:
        add_multiple(samples, out, y, slope, own_factor)

    return fill


def _scaling(out: Any, by: Any, factor: float) -> Callable[[tuple[int, int]], None]:
    own_factor = by.dtype.type(factor)

    def fill(samples: tuple[int, int]) -> None:
        own = slice(*samples)
        np.multiply(by[own], own_factor, out=out[own])

    return fill
