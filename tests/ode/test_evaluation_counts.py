from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from nodebench.ode.block import ODEBlock
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import GRADIENTS, METHODS
from tests.support.tiny_fields import DOPRI5, FIXED, RK4, Field, start


def counted(solver: Solver, gradient: str, times: Sequence[float]) -> tuple[int, int]:
    block = ODEBlock(Field(), solver, Gradient(name=gradient))
    trajectory = block.trajectory(start(), times)
    forward = block.evaluations
    trajectory.sum().backward()
    return forward, block.evaluations - forward


@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 0.5, 0.6, 1.0)])
@pytest.mark.parametrize("method", FIXED)
def test_evaluations_of_a_fixed_solve_are_steps_times_stages(
    method: str, times: tuple[float, ...]
) -> None:
    solver, stages = Solver(method=method, steps=3), METHODS[method].stages
    assert stages is not None
    n = 3 * stages * (len(times) - 1)
    assert counted(solver, "backprop", times) == (n, 0)
    assert counted(solver, "recompute", times) == (n, n)
    assert counted(solver, "adjoint", times) == (n, n)


@pytest.mark.parametrize(
    "solver",
    [DOPRI5, Solver(method="bosh3", tol=1e-3), Solver(method="implicit_adams", steps=8)],
    ids=lambda solver: solver.method,
)
def test_recompute_evaluates_as_often_again_as_the_forward_pass(solver: Solver) -> None:
    forward, none = counted(solver, "backprop", (0.0, 1.0))
    assert none == 0
    assert counted(solver, "recompute", (0.0, 1.0)) == (forward, forward)


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_solve_without_gradient_evaluates_once(name: str) -> None:
    block = ODEBlock(Field(), RK4, Gradient(name=name))
    with torch.no_grad():
        y = block(start())
    assert not y.requires_grad
    assert block.evaluations == 20
