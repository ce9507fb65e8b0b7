"""The regularizers by name, and a trial's regularizers in its training steps."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from nodebench.ode.block import ode_blocks
from nodebench.ode.regularizers.jacobian import JacobianNorm
from nodebench.ode.regularizers.kinetic import KineticEnergy
from nodebench.ode.regularizers.local_error import SumOfLocalErrors
from nodebench.ode.regularizers.regularization import Regularization
from nodebench.ode.regularizers.regularizer import Draws, Regularizer
from nodebench.ode.regularizers.steer import RandomEnd
from nodebench.ode.regularizers.stiffness import SumOfStiffness
from nodebench.ode.regularizers.taylor import TaylorDerivative
from nodebench.spec.training import Regularize

REGULARIZERS: dict[str, Callable[[Any, Draws], Regularizer]] = {
    "kinetic": KineticEnergy,
    "jacobian": JacobianNorm,
    "taylor": TaylorDerivative,
    "local_error": SumOfLocalErrors,
    "stiffness": SumOfStiffness,
    "steer": RandomEnd,
}
"""Name -> (its settings, its random numbers in a block and a step) -> the regularizer."""


class Penalty:
    """The terms that regularizers add to a training step's loss; complete once it is computed."""

    def __init__(self, weights: Mapping[str, float], blocks: Sequence[Regularization]):
        self._weights, self._blocks = weights, blocks

    @functools.cached_property
    def terms(self) -> dict[str, Tensor]:
        """Each unweighted integral or sum: the mean over samples, summed over ODE blocks."""
        found: dict[str, Tensor] = {}
        for block in self._blocks:
            for name, values in block.found:
                found[name] = found.get(name, 0) + values.mean()
        return found

    def added_to(self, loss: Tensor) -> Tensor:
        """The loss plus the weighted terms."""
        for name, term in self.terms.items():
            loss = loss + self._weights[name] * term
        return loss

    @property
    def evaluations(self) -> int:
        """Evaluations of f for the terms so far, in forward and backward passes."""
        return sum(block.evaluations for block in self._blocks)


class Regularizers:
    """A trial's regularizers."""

    def __init__(self, settings: Regularize, seed: int):
        self._settings = settings.parts
        self._seed = seed

    @contextlib.contextmanager
    def of_step(self, model: nn.Module, iteration: int) -> Generator[Penalty]:
        """A context in which the model's ODE blocks are regularized, in this training iteration."""
        blocks = ode_blocks(model)
        made = [Regularization(self._made(iteration, number)) for number in range(len(blocks))]
        try:
            for block, regularization in zip(blocks, made, strict=True):
                block.regularization = regularization
            yield Penalty(self._weights, made)
        finally:
            for block in blocks:
                block.regularization = None

    @property
    def _weights(self) -> dict[str, float]:
        return {name: getattr(part, "weight", 0.0) for name, part in self._settings.items()}

    def _made(self, iteration: int, block: int) -> dict[str, Regularizer]:
        return {
            name: REGULARIZERS[name](part, Draws(self._seed, name, iteration, block))
            for name, part in self._settings.items()
        }
