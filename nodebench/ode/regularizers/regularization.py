"""The regularizers of one ODE block in one training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from torch import Tensor, nn

from nodebench.ode.regularizers.augmented import Augmented
from nodebench.ode.regularizers.regularizer import Regularizer

Solve: TypeAlias = Callable[[nn.Module, Tensor, Sequence[float]], list[Tensor]]
"""(f, y0, times) -> the states at times."""


class Regularization:
    """Applies regularizers to a block's solves, and collects their integrals.

    `found` holds the name and the integral [samples] of each term of each solve. `evaluations`
    counts the evaluations of f for the terms, including those of a backward pass that solves again.
    """

    def __init__(self, regularizers: Mapping[str, Regularizer]):
        self._regularizers = regularizers
        self.found: list[tuple[str, Tensor]] = []
        self.evaluations = 0

    def end(self, t1: float) -> float:
        """The end of the next solve over [0, t1]."""
        for regularizer in self._regularizers.values():
            t1 = regularizer.end(t1)
        return t1

    def states(
        self, f: nn.Module, y0: Tensor, times: Sequence[float], solve: Solve
    ) -> list[Tensor]:
        """The states at `times`; the integrals up to the last time are added to `found`."""
        made = {name: each.integrand(y0) for name, each in self._regularizers.items()}
        integrands = {name: integrand for name, integrand in made.items() if integrand}
        if not integrands:
            return solve(f, y0, times)
        augmented = Augmented(f, list(integrands.values()), y0, self._count)
        states, integrals = augmented.apart(solve(augmented, augmented.start(y0), times))
        self.found += zip(integrands, integrals.unbind(1), strict=True)
        return states

    def _count(self, evaluations: int) -> None:
        self.evaluations += evaluations
