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


class PulledSteps:
    """A solve on its way back: the weights' gradients until now, and what is kept of it yet.

    Sums are in the order of autograd.
    """

    def __init__(
        self,
        chain: Chain,
        tableau: Tableau,
        sums: type[StepSums],
        kept: Kept,
        needed: Sequence[bool],
    ):
        self.by_weights: list[Tensor | None] = [None] * len(needed)
        self._chain, self._tableau, self._kept = chain, tableau, kept
        self._needed = (True, *needed)
        self._fills = Fills(len(kept[0][0]))
        self._sums = sums(self._fills, [])

    def step(self, t: float, h: float, by: Any, of_start: Any = None) -> Any:
        """The gradient of the state before the last of the remaining steps, from that after it.

        `of_start` is what of it does not come through the step.
        """
        total, _ = self.stages(t, h, by, of_start, [None] * len(self._tableau.b), first=0)
        return total

    def stages(
        self, t: float, h: float, by: Any, of_start: Any, by_slopes: list[Any], first: int
    ) -> tuple[Any, list[Any]]:
        """The gradients of the state before a step, and of the slopes before its `first` stage.

        `by_slopes` has what of the slopes' does not come through the step.
        """
        tableau = self._tableau
        total = by if of_start is None else self._sums.total(of_start, by)
        self._sums.spread(by, h, tableau.b, by_slopes)
        for stage in reversed(range(first, len(tableau.b))):
            a = tableau.a[stage]
            by_stage = self.evaluation(t + tableau.c[stage] * h, by_slopes[stage])
            self._sums.spread(by_stage, h, a, by_slopes)
            total = self._sums.total(total, by_stage, by_stage)
        return total, by_slopes[:first]

    def evaluation(self, t: float, by_slope: Any) -> Any:
        """The gradient of the last remaining evaluation's input; None is no gradient."""
        kept = [self._kept.pop() for _ in self._chain.operations][::-1]
        if by_slope is None:
            return None
        by_x, by_weights = self._chain.pull(t, by_slope, kept, self._needed, self._fills)
        for number, found in enumerate(by_weights):
            total = self.by_weights[number]
            if total is None or found is None:
                self.by_weights[number] = found
            else:
                total.add_(found)
        return by_x

    def total(self, one: Any, other: Any) -> Any:
        """The sum of two gradients."""
        return self._sums.total(one, other)

    def finish(self) -> None:
        """Does what has not been done yet."""
        self._fills.run()
