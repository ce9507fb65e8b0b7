"""The regularizer `stiffness`: the sum over steps of an estimate of the stiffness.

The last two stages of the method are at the end of the step. Their slopes differ by about the
largest eigenvalue of ∂f/∂y times the difference of their states. It costs no additional
evaluations of f.

Source: Pal, Ma, Shah, Rackauckas 2021 (ICML), *Opening the Blackbox*, the regularizer R_S, after
Hairer, Wanner 1996, section IV.2. The authors' code divides the estimate by the size of the
method's stability region and, for MNIST, takes the largest over steps; here it is the sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nodebench.ode.regularizers.local_error import weighed_slopes
from nodebench.ode.regularizers.regularizer import Draws, Regularizer, StepTerm
from nodebench.ode.tableau import EmbeddedTableau
from nodebench.spec.training import Stiffness


class SumOfStiffness(Regularizer):
    """Σ ‖k_s − k_(s−1)‖ / ‖y_s − y_(s−1)‖ over the slopes and states of the last two stages."""

    def __init__(self, _settings: Stiffness, _draws: Draws):
        super().__init__()

    def step_term(self) -> StepTerm:
        """The estimate of a step; 0 where the two states are equal."""
        return _estimate


def _estimate(tableau: EmbeddedTableau, h: Tensor, slopes: Sequence[Tensor]) -> Tensor:
    *_, before, last = tableau.a
    weights = [b - a for a, b in zip((*before, 0.0), last, strict=True)]
    between = torch.linalg.vector_norm(weighed_slopes(h, weights, slopes[:-1]), dim=1)
    change = torch.linalg.vector_norm(slopes[-1] - slopes[-2], dim=1)
    return torch.where(between > 0, change / torch.where(between > 0, between, 1.0), 0.0)
