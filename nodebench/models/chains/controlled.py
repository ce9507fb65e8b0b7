"""Steps of embedded methods along a chain, with one step size for the whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nodebench.models.chains.chain import Chain
from nodebench.models.chains.computation import Computation, Kept
from nodebench.models.chains.gradients import BackwardPass, TakenSteps
from nodebench.models.chains.images import to_array, to_images
from nodebench.models.chains.operation import Fills, LayerGradients
from nodebench.models.chains.sums import EmbeddedSums
from nodebench.ode.adaptive.controlled import ControlledSolve
from nodebench.ode.adaptive.extent import WholeBatch
from nodebench.ode.adaptive.tensor_steps import TensorSteps
from nodebench.ode.field import Counted, OverStates
from nodebench.ode.steppers.runge_kutta import EmbeddedRungeKutta
from nodebench.ode.steppers.stepper import RightHandSide, State
from nodebench.ode.tableau import EMBEDDED, EmbeddedTableau
from nodebench.spec.solver import Solver


class ControlledComputation(Computation):
    """The states at the times after the first, by adaptive steps.

    The search for a step is not differentiated: the gradient is that of the accepted steps.
    """

    def __init__(self, chain: Chain, f: Counted, times: Sequence[float], solver: Solver):
        self.chain, self.weights = chain, chain.weights
        self._f, self._times, self._solver = f, times, solver
        self._tableau = EMBEDDED[solver.method]
        self._taken: list[TakenSteps] = []

    def outputs(self, x: Any, kept: Kept | None) -> list[Any]:
        """The states at the times."""
        tries = _Tries(self.chain, self._tableau, self._f, kept)
        taken: TakenSteps = []

        def accept(t: Tensor, h: Tensor, *_: State) -> None:
            taken.append((t.item(), h.item()))
            tries.keep()

        f, states = OverStates(self._f), list[Any]()
        solve = ControlledSolve(f, self._solver, self._times, on_accept=accept, steps=tries)
        at = solve.start((to_images(x),))
        for end in self._times[1:]:
            at = solve.reach(end, at)
            self._taken.append(taken.copy())
            taken.clear()
            states.append(to_array(at.y[0]))
        self._f.on_counts(solve.counts())
        return states

    def pull(
        self, by_outputs: Sequence[Any], kept: Kept, needed: Sequence[bool]
    ) -> tuple[Any, LayerGradients]:
        """The gradients of y0 and of all weights."""
        backward = BackwardPass(self.chain, self._tableau, EmbeddedSums, kept, needed, by_outputs)
        by, (by_slope,) = backward.steps(self._taken, first=1)
        by = backward.added(by, backward.evaluation(self._times[0], by_slope))
        backward.finish()
        return by if needed[0] else None, backward.by_weights

    def by_torch(self, x: Tensor, weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """The states by torch."""

        def f(t: Any, y: State) -> State:
            return (self.chain.by_torch(t, y[0], weights),)

        stepper, states = EmbeddedRungeKutta(self._tableau), list[Tensor]()
        carry = stepper.start(f, self._times[0], (x,))
        for taken in self._taken:
            for t, h in taken:
                carry = stepper.step(f, t, h, carry)
            states.append(carry[0][0])
        return states


class _Tries(TensorSteps):
    """The steps that a solve tries, on arrays, and what the gradient needs from the last one."""

    def __init__(self, chain: Chain, tableau: EmbeddedTableau, f: Counted, kept: Kept | None):
        super().__init__(tableau, WholeBatch(None))
        self._chain, self._f, self._kept = chain, f, kept
        self._of_last: Kept | None = None

    def start(self, _f: RightHandSide, t: float, y: State, /) -> tuple[State, State]:
        """The first slope is f(t, y)."""
        x = to_array(y[0])
        self._of_last = None if self._kept is None else Kept()
        fills = Fills(len(x))
        self._f.on_evaluations(1)
        slope = self._chain.output(t, x, fills, self._of_last, [])
        fills.run()
        self.keep()
        return y, (to_images(slope),)

    def tried(
        self, _f: RightHandSide, t: Tensor, h: Tensor, y: State, slope: State, /
    ) -> tuple[State, list[State]]:
        """Returns y + h sum_i b_i k_i, and all slopes."""
        tableau, start, size = self.tableau, t.item(), h.item()
        x, slopes = to_array(y[0]), [to_array(slope[0])]
        self._of_last = None if self._kept is None else Kept()
        self._f.on_evaluations(len(tableau.b) - 1)
        fills, spares = Fills(len(x)), list[Any]()
        sums = EmbeddedSums(fills)
        for a, c in zip(tableau.a[1:], tableau.c[1:], strict=True):
            stage = sums.moved(x, size, a, slopes)
            slopes.append(self._chain.output(start + c * size, stage, fills, self._of_last, spares))
        after = sums.moved(x, size, tableau.b, slopes)
        fills.run()
        return (to_images(after),), [(to_images(each),) for each in slopes]

    def keep(self) -> None:
        """Keeps the arrays that the gradient needs from the last step tried."""
        if self._kept is not None and self._of_last:
            self._kept += self._of_last
