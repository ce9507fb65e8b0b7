"""The regularizer `local_error`: the sum over steps of the estimated local error times the step.

It costs no additional calls of f: the error control of an embedded method computes the estimate
anyway.

Source: Pal, Ma, Shah, Rackauckas 2021 (ICML), *Opening the Blackbox*, the regularizer R_E. The
authors' code divides errors by the tolerances and takes their root mean square, and for MNIST the
mean over steps; here it is the Euclidean norm of each sample's error, and the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nodebench.ode.regularizers.regularizer import AcceptedStep, Draws, Regularizer, StepTerm
from nodebench.spec.training import LocalError


class SumOfLocalErrors(Regularizer):
    """Σ ‖h Σ e_i k_i‖ |h|."""

    def __init__(self, _settings: LocalError, _draws: Draws):
        super().__init__()

    def step_term(self) -> StepTerm:
        """The error estimate of a step, times the step."""
        return _weighted_error


def _weighted_error(step: AcceptedStep) -> Tensor:
    return torch.linalg.vector_norm(step.movement(step.tableau.e), dim=1) * step.h.abs()
