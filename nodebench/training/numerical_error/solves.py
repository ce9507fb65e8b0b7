"""The error and the order of convergence of a model's solves."""

from __future__ import annotations

import math
from statistics import linear_regression
from typing import Any

import torch
from torch import Tensor, nn

from nodebench.errors import DeadlineExceeded, TrialFailure
from nodebench.ode.block import ode_blocks, one_pass, recorded, replaced, solved_by
from nodebench.spec.solver import Solver
from nodebench.training.numerical_error.reference import Reference, in_double
from nodebench.training.task import Task

SOLVE_SAMPLES = 8
"""Enough to estimate an error, and few enough to cost little compared with a test set."""
SOLVE_GROWTH = 16
"""The largest growth of a reference's steps."""


class ReferenceSolves:
    """The error of a model's solves, on a few training samples, in float64."""

    def __init__(self, model: nn.Module, task: Task[Any], reference: Solver):
        self.model = in_double(model).eval()
        solver = replaced(ode_blocks(self.model), solver=reference, max_evaluations=None)
        with torch.no_grad(), solver, recorded(self.model) as solves:
            task.loss(self.model, task.sample(SOLVE_SAMPLES))
        self.solves = solves
        self._first = reference
        self.reference = Reference(self._reference_outputs, reference, SOLVE_GROWTH)
        self._known: dict[Solver, float | None] = {}
        """Solver -> error, kept since points and orders need some of them again."""

    def under(self, solver: Solver) -> float | None:
        """‖y − y*‖ / ‖y*‖ over the outputs of all ODE blocks; None if unknown.

        The error is unknown if a solve fails, or if the finest reference is hardly more accurate.
        Each block starts from its input in the first reference, so that errors do not accumulate.
        """
        if solver in self._known:
            return self._known[solver]
        try:
            error = self.reference.error(self._outputs(solver))
        except DeadlineExceeded:
            raise
        except TrialFailure:
            return None
        self._known[solver] = error
        return error

    def order(self, solver: Solver) -> float | None:
        """The observed order of convergence: the slope of the error over h, h/2 and h/4."""
        if solver.facts.kind == "adaptive":
            return None
        errors = []
        for finer in (1, 2, 4):
            steps = solver.steps and solver.steps * finer
            size = solver.step_size and solver.step_size / finer
            error = self.under(solver.model_copy(update={"steps": steps, "step_size": size}))
            if error is not None:
                errors.append((math.log(finer), -math.log(error)))
        return linear_regression(*zip(*errors, strict=True)).slope if len(errors) > 1 else None

    def _reference_outputs(self, solver: Solver) -> Tensor:
        """The blocks' outputs under a reference, which may take any number of evaluations.

        Those of the first reference were recorded with the inputs.
        """
        if solver == self._first:
            return torch.cat([s.states[1:].flatten() for s in self.solves])
        with replaced(ode_blocks(self.model), max_evaluations=None):
            return self._outputs(solver)

    @torch.no_grad()
    def _outputs(self, solver: Solver) -> Tensor:
        """The blocks' outputs under a solver, as one vector."""
        with one_pass(self.model), solved_by(self.model, solver):
            return torch.cat([s.block.trajectory(s.y0, s.times)[1:].flatten() for s in self.solves])
