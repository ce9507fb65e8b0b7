"""The interface of a regularizer: an integral or a sum along every training solve, or its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from nodebench.ode.adaptive.tensor_steps import weighted
from nodebench.ode.regularizers.field_call import FieldCall
from nodebench.ode.tableau import EmbeddedTableau
from nodebench.spec.seed import stream

Integrand: TypeAlias = Callable[[FieldCall, float | Tensor, Tensor, Tensor], Tensor]
"""(f, t, y, dy/dt) -> a tensor of the state's shape, whose squares are summed for each sample."""


@dataclass(frozen=True)
class AcceptedStep:
    """A step of an embedded method, with samples as rows.

    Shapes: `h` [samples or 1], signed, 0 for samples that rejected it; `y`, before the step, and
    each stage's slope [samples, numbers].
    """

    tableau: EmbeddedTableau
    h: Tensor
    y: Tensor
    slopes: Sequence[Tensor]

    def movement(self, weights: Sequence[float]) -> Tensor:
        """The movement h Σ w_i k_i along weighted slopes, [samples, numbers]."""
        (total,) = weighted(weights, [(slope,) for slope in self.slopes])
        return self.h[:, None] * total


StepTerm: TypeAlias = Callable[[AcceptedStep], Tensor]
"""A step -> a value for each sample, [samples]."""


class Draws:
    """Random numbers of one regularizer in one ODE block and one training step.

    They follow from the trial's seed and these `names`, so that resumed training draws the same
    numbers. Each solve takes the next generator.
    """

    def __init__(self, seed: int, *names: str | int):
        self._seed, self._names, self._solves = seed, names, 0

    def generator(self) -> torch.Generator:
        """The next solve's generator, on the CPU."""
        seed = stream(self._seed, "regularize", *self._names, self._solves)
        self._solves += 1
        return torch.Generator().manual_seed(seed)


class Regularizer:
    """A regularizer in the solves of one ODE block in one training step.

    A subclass is constructed from its settings and `Draws`, and overrides one of the methods.
    """

    def end(self, t1: float) -> float:
        """The new end of a solve over [0, t1]."""
        return t1

    def integrand(self, _y0: Tensor, /) -> Integrand | None:
        """The function to square and integrate along the solve from y0, or None."""
        return None

    def step_term(self) -> StepTerm | None:
        """The function to sum over the accepted steps of every solve, or None."""
        return None
