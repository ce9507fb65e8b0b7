"""The interface of a regularizer: an integral or a sum along every training solve, or its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from nodebench.ode.regularizers.field_call import FieldCall
from nodebench.ode.tableau import EmbeddedTableau
from nodebench.spec.seed import stream

Integrand: TypeAlias = Callable[[FieldCall, float | Tensor, Tensor, Tensor], Tensor]
"""(f, t, y, dy/dt) -> a tensor of the state's shape, whose squares are summed for each sample."""


StepTerm: TypeAlias = Callable[[EmbeddedTableau, Tensor, Sequence[Tensor]], Tensor]
"""(tableau, signed steps [samples or 1], slopes [samples, numbers] of each stage) -> [samples].

The step of a sample that rejected it is 0.
"""


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
