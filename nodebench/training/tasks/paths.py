"""The paths of samples through an ODE block, which a report draws."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from nodebench.errors import TrialFailure
from nodebench.ode.block import BlockSolve, ODEBlock, ode_blocks, one_pass, recorded, solved_by
from nodebench.spec.solver import Solver

MOST_INTERVALS = 64
"""The maximum number of time intervals on a path."""


class SamplePaths(NamedTuple):
    """Times, and each sample's states at those times."""

    times: list[float]
    states: list[list[list[float]]]


def planar_solve(model: nn.Module, inputs: Tensor) -> BlockSolve | None:
    """The solve of a model that solves one ODE, in two dimensions; None for any other model."""
    if len(ode_blocks(model)) != 1:
        return None
    euler = solved_by(model.eval(), Solver(method="euler", steps=1))
    with one_pass(model), recorded(model) as solves, euler:
        model(inputs)
    if len(solves) != 1 or solves[0].y0.dim() < 2 or solves[0].y0.flatten(1).shape[1] != 2:
        return None
    return solves[0]


def sample_paths(block: ODEBlock, y0: Tensor, solver: Solver) -> SamplePaths | None:
    """Each sample's path from y0; None if the solve fails or diverges."""
    times, solver = _path_times(block.t1, solver)
    try:
        with one_pass(block), solved_by(block, solver):
            states = block.trajectory(y0, times)
    except TrialFailure:
        return None
    if not states.isfinite().all():
        return None
    rounded = (states.flatten(2).double() * 1e5).round() / 1e5
    return SamplePaths(times, rounded.transpose(0, 1).tolist())


def _path_times(t1: float, solver: Solver) -> tuple[list[float], Solver]:
    """The times of a path, and the solver between them, which takes the given one's steps.

    A fixed method takes several steps between two times if it takes more than `MOST_INTERVALS`.
    """
    count = MOST_INTERVALS
    if solver.facts.kind != "adaptive":
        steps = solver.step_count(t1)
        between = -(-steps // MOST_INTERVALS)  # steps from one time to the next
        count = -(-steps // between)
        finer = {"steps": between, "step_size": None, "adapt": None}
        solver = Solver.model_validate(solver.model_dump() | finer)
    return [t1 * i / count for i in range(count + 1)], solver
