"""The regularizers of one ODE block in one training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from torch import Tensor, nn

from nodebench.ode.field import OnStep
from nodebench.ode.regularizers.augmented import Augmented, samples_in
from nodebench.ode.regularizers.regularizer import AcceptedStep, Regularizer
from nodebench.ode.steppers.stepper import State
from nodebench.ode.tableau import EmbeddedTableau

Solve: TypeAlias = Callable[[nn.Module, Tensor, Sequence[float], OnStep | None], list[Tensor]]
"""(f, y0, times, on_step) -> the states at times."""


class Regularization:
    """Applies regularizers to a block's solves, and collects their integrals and sums.

    `found` holds the name and the value [samples] of each term of each solve. `evaluations` counts
    the evaluations of f for the terms, including those of a backward pass that solves again.
    """

    def __init__(self, regularizers: Mapping[str, Regularizer]):
        self._regularizers = regularizers
        self._step_terms = {
            name: term for name, each in regularizers.items() if (term := each.step_term())
        }
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
        """The states at `times`; the terms up to the last time are added to `found`."""
        made = {name: each.integrand(y0) for name, each in self._regularizers.items()}
        integrands = {name: integrand for name, integrand in made.items() if integrand}
        if not integrands:
            samples = samples_in(y0)
            return solve(f, y0, times, self._summed(lambda state: state.reshape(samples, -1)))
        augmented = Augmented(f, list(integrands.values()), (times[0], y0), self._count)
        start, on_step = augmented.start(y0), self._summed(augmented.state_rows)
        states, integrals = augmented.apart(solve(augmented, start, times, on_step))
        self.found += zip(integrands, integrals.unbind(1), strict=True)
        return states

    def _summed(self, rows_of: Callable[[Tensor], Tensor]) -> OnStep | None:
        """Adds the terms of a step to `found`; `rows_of` gives a state as [samples, numbers]."""
        if not self._step_terms:
            return None

        def on_step(tableau: EmbeddedTableau, h: Tensor, y: State, slopes: Sequence[State]) -> None:
            before, *rows = (rows_of(state) for (state,) in (y, *slopes))
            step = AcceptedStep(tableau, h.reshape(-1).to(before.dtype), before, rows)
            self.found += ((name, term(step)) for name, term in self._step_terms.items())

        return on_step

    def _count(self, evaluations: int) -> None:
        self.evaluations += evaluations
