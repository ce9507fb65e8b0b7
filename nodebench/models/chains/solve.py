"""Solves of an ODE whose right-hand side is a chain, as one operation of autograd.

Each thread takes its samples through several evaluations before it waits for the others, without
calls to torch in between. States and gradients are bit-identical to those of steps by torch along
the same chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from nodebench.models.chains.chain import Chain
from nodebench.models.chains.computation import Computation, Kept, computed
from nodebench.models.chains.controlled import ControlledComputation
from nodebench.models.chains.gradients import BackwardPass, TakenSteps
from nodebench.models.chains.operation import Fills, LayerGradients
from nodebench.models.chains.sums import FixedSums
from nodebench.ode.field import Counted
from nodebench.ode.fixed import steps
from nodebench.ode.steppers.runge_kutta import RungeKutta
from nodebench.ode.tableau import Tableau
from nodebench.spec.solver import Solver

TOGETHER = 8
"""The evaluations after which threads wait for each other. Interrupts and deadlines may be noticed
that much later."""


class ChainSolve:
    """The `WholeSolve` of a chain.

    Shapes: states [batch, channels, height, width], for which `are_compiled` holds.
    """

    def __init__(self, chain: Chain):
        self._chain = chain

    def on_grids(
        self, f: Counted, y0: Tensor, grids: Iterable[Iterable[float]], tableau: Tableau
    ) -> list[Tensor]:
        """The state at the end of each grid of times."""
        return computed(_FixedComputation(self._chain, grids, tableau, f.on_evaluations), y0)

    def controlled(
        self, f: Counted, y0: Tensor, times: Sequence[float], solver: Solver
    ) -> list[Tensor]:
        """The state at each of times[1:], by an embedded method."""
        return computed(ControlledComputation(self._chain, f, times, solver), y0)


class _FixedComputation(Computation):
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
        self._taken: list[TakenSteps] = []

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
        backward = BackwardPass(self.chain, self.tableau, FixedSums, kept, needed, by_outputs)
        by, _ = backward.steps(self._taken, first=0)
        backward.finish()
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
    """A solve in progress: the pending fills of its arrays, and the arrays no longer in use."""

    def __init__(
        self,
        solve: _FixedComputation,
        samples: int,
        kept: Kept | None,
        on_evaluations: Callable[[int], None],
    ):
        self.fills = Fills(samples)
        self._chain, self._tableau, self._kept = solve.chain, solve.tableau, kept
        self._on_evaluations = on_evaluations
        self._evaluations = 0
        self._spares: list[Any] = []
        self._sums = FixedSums(self.fills, self._spares)

    def step(self, t: float, h: float, y: Any) -> Any:
        """The state after a step from y."""
        slopes: list[Any] = []
        for a, c in zip(self._tableau.a, self._tableau.c, strict=True):
            stage = self._sums.moved(y, h, a, slopes)
            slopes.append(self._slope(t + c * h, stage))
            if stage is not y:
                self.leave(stage)
        after = self._sums.moved(y, h, self._tableau.b, slopes)
        for slope in slopes:
            self.leave(slope)
        return after

    def leave(self, array: Any) -> None:
        """Releases an array for reuse, if nothing is kept for the gradient."""
        if self._kept is None:
            self._spares.append(array)

    def _slope(self, t: float, y: Any) -> Any:
        self._on_evaluations(1)
        slope = self._chain.output(t, y, self.fills, self._kept, self._spares)
        self._evaluations += 1
        if self._evaluations % TOGETHER == 0:
            self.fills.run()
        return slope
