"""The backward pass through the steps of a solve along a chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nodebench.models.chains.chain import Chain
from nodebench.models.chains.computation import Kept
from nodebench.models.chains.operation import Fills
from nodebench.models.chains.sums import StepSums
from nodebench.ode.tableau import Tableau

TakenSteps = list[tuple[float, float]]
"""The steps (t, h) of a solve from one output time to the next."""


class BackwardPass:
    """Differentiates the steps of a solve, the last first, and sums the gradients of the weights.

    `first` is the number of slopes that a step takes from the previous one. Sums are in autograd's
    order. A gradient is None if nothing depends on its array.
    """

    def __init__(
        self,
        chain: Chain,
        tableau: Tableau,
        sums: type[StepSums],
        kept: Kept,
        needed: Sequence[bool],
        by_outputs: Sequence[Any],
    ):
        self.by_weights: list[Tensor | None] = [None] * (len(needed) - 1)
        self._chain, self._tableau, self._kept = chain, tableau, kept
        self._needed, self._by_outputs = needed, by_outputs
        self._fills = Fills(len(next(by for by in by_outputs if by is not None)))
        self._sums = sums(self._fills)

    def steps(self, taken: Sequence[TakenSteps], first: int) -> tuple[Any, list[Any]]:
        """The gradients of y0 and of the first step's first slopes, from those of all outputs."""
        *of_starts, by = None, *self._by_outputs
        by_first = [None] * first
        for steps, by_start in reversed(list(zip(taken, of_starts, strict=True))):
            for number, (t, h) in reversed(list(enumerate(steps))):
                by_slopes = [None] * (len(self._tableau.b) - first) + by_first
                total = by if number else self.added(by_start, by)
                by, by_first = self._step(t, h, by, total, by_slopes, first)
            if not steps:
                by = self.added(by_start, by)
        return by, by_first

    def evaluation(self, t: float, by_slope: Any) -> Any:
        """The gradient of the state at the last evaluation that is still kept."""
        kept = [self._kept.pop() for _ in self._chain.operations][::-1]
        if by_slope is None:
            return None
        of_state = bool(self._kept) or self._needed[0]  # the first evaluation is at y0
        needed = (of_state, *self._needed[1:])
        by_state, by_weights = self._chain.pull(t, by_slope, kept, needed, self._fills)
        for number, found in enumerate(by_weights):
            total = self.by_weights[number]
            if total is None or found is None:
                self.by_weights[number] = found
            else:
                total.add_(found)
        return by_state

    def added(self, one: Any, other: Any) -> Any:
        """The sum of two gradients, in a new array."""
        return self._sums.added(one, other)

    def finish(self) -> None:
        """Fills all arrays that are not filled yet."""
        self._fills.run()

    def _step(
        self, t: float, h: float, by: Any, total: Any, by_slopes: list[Any], first: int
    ) -> tuple[Any, list[Any]]:
        """The gradients of the state before a step, and of its first slopes.

        `by` is the gradient of the state after it. `total` is `by` plus the other gradients of the
        state before it. `by_slopes` holds the gradients of slopes from the next step.
        """
        tableau = self._tableau
        self._sums.pull(by, h, tableau.b, by_slopes)
        for stage in reversed(range(first, len(tableau.b))):
            by_stage = self.evaluation(t + tableau.c[stage] * h, by_slopes[stage])
            self._sums.pull(by_stage, h, tableau.a[stage], by_slopes)
            total = self._sums.added(total, by_stage, by_stage)
        return total, by_slopes[:first]
