"""The adjoint along an interpolated state."""

from __future__ import annotations

import pytest
import torch

from nodebench.ode.gradients.interpolated import Interpolant, chebyshev
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from tests.support.tiny_fields import taken

FINE = Solver(method="dopri5", tol=1e-10)


def off(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest relative error among the gradients."""
    return max(
        ((found[key] - expected[key]).norm() / expected[key].norm()).item() for key in expected
    )


@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 0.3, 1.0), (1.0, 0.4, 0.0)])
@pytest.mark.parametrize("solver", [FINE, Solver(method="rk4", steps=60)], ids=["dopri5", "rk4"])
def test_it_tends_to_the_adjoint_as_nodes_grow(solver, times) -> None:
    expected = taken(FINE, Gradient(name="adjoint"), times=times)
    errors = [
        off(taken(solver, Gradient(name="interpolated", nodes=nodes), times=times), expected)
        for nodes in (2, 4, 8)
    ]
    assert errors[0] > 1e-3
    assert errors[1] < 1e-2 * errors[0]
    assert errors[2] < 1e-9


def test_the_solve_itself_is_that_of_backprop() -> None:
    solver, times = Solver(method="rk4", steps=5), (0.0, 0.5, 1.0)
    found = taken(solver, Gradient(name="interpolated"), times=times)["trajectory"]
    expected = taken(solver, Gradient(name="backprop"), times=times)["trajectory"]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_polynomial_is_interpolated_exactly_between_its_nodes() -> None:
    def cubic(t: float) -> float:
        return 1 - 2 * t + 3 * t**2 - t**3

    nodes = chebyshev(0.5, 2.0, 4)
    path = Interpolant(nodes, torch.tensor([[cubic(t)] for t in nodes], dtype=torch.float64))
    for t in (0.5, 0.6, nodes[1], nodes[1] + 1e-300, 1.9, 2.0):
        assert path(t).item() == pytest.approx(cubic(t), rel=1e-13)


def test_chebyshevs_nodes_hold_both_ends_and_crowd_there() -> None:
    assert chebyshev(0.0, 1.0, 3) == pytest.approx([0.0, 0.5, 1.0])
    assert chebyshev(1.0, 0.0, 5) == pytest.approx([1.0, 0.853553, 0.5, 0.146447, 0.0], abs=1e-6)
