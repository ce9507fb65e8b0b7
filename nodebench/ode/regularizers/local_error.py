"""The regularizer `local_error`: the sum over steps of the estimated local error times the step.

It costs no additional evaluations of f: the error control of an embedded method computes the
estimate anyway.

Source: Pal, Ma, Shah, Rackauckas 2021 (ICML), *Opening the Blackbox*, the regularizer R_E. The
authors' code divides errors by the tolerances and takes their root mean square, and for MNIST the
mean over steps; here it is the Euclidean norm of each sample's error, and the sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nodebench.ode.regularizers.regularizer import Draws, Regularizer, StepTerm
from nodebench.ode.tableau import EmbeddedTableau
from nodebench.spec.training import LocalError


class SumOfLocalErrors(Regularizer):
    """Σ ‖h Σ e_i k_i‖ |h|."""

    def __init__(self, _settings: LocalError, _draws: Draws):
        super().__init__()

    def step_term(self) -> StepTerm:
        """The error estimate of a step, times the step."""
        return _weighed_error


def _weighed_error(tableau: EmbeddedTableau, h: Tensor, slopes: Sequence[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(weighed_slopes(h, tableau.e, slopes), dim=1) * h.abs()


def weighed_slopes(h: Tensor, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """The movement h Σ w_i k_i, [samples, numbers]."""
    terms = (weight * slope for weight, slope in zip(weights, slopes, strict=True) if weight)
    return h[:, None] * sum(terms, torch.zeros_like(slopes[0]))
