"""The regularizer `stiffness`: the sum over steps of an estimate of the stiffness.

The last two stages of the method are at the end of the step. Their slopes differ by about the
largest eigenvalue of ∂f/∂y times the difference of their states. It costs no additional calls of f.

Source: Pal, Ma, Shah, Rackauckas 2021 (ICML), *Opening the Blackbox*, the regularizer R_S, after
Hairer, Wanner 1996, section IV.2. The authors' code divides the estimate by the size of the
method's stability region and, for MNIST, takes the largest over steps; here it is the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import vector_norm

from nodebench.ode.regularizers.regularizer import AcceptedStep, Draws, Regularizer, StepTerm
from nodebench.spec.training import Stiffness

ABOVE_ROUNDING = 10
"""States closer than this many roundings of the state tell nothing about the stiffness."""


class SumOfStiffness(Regularizer):
    """Σ ‖k_s − k_(s−1)‖ / ‖y_s − y_(s−1)‖ over the slopes and states of the last two stages."""

    def __init__(self, _settings: Stiffness, _draws: Draws):
        super().__init__()

    def step_term(self) -> StepTerm:
        """The estimate of a step; 0 where rounding is a tenth of the states' difference."""
        return _estimate


def _estimate(step: AcceptedStep) -> Tensor:
    *_, before, last = step.tableau.a
    between = [b - a for a, b in zip((*before, 0.0), last, strict=True)]
    moved = vector_norm(step.movement([*between, 0.0]), dim=1)
    changed = vector_norm(step.slopes[-1] - step.slopes[-2], dim=1)
    rounding = torch.finfo(moved.dtype).eps * vector_norm(step.y.detach(), dim=1)
    is_known = moved > ABOVE_ROUNDING * rounding
    return torch.where(is_known, changed / torch.where(is_known, moved, 1.0), 0.0)
