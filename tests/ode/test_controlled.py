"""Solves whose steps are chosen here: one per batch is torchdiffeq's, and `tsit5` has its order."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nodebench.ode.fixed import integrate
from nodebench.ode.solve import solve
from nodebench.ode.steppers.stepper import State
from nodebench.ode.steppers.table import stepper_of
from nodebench.ode.tableau import EMBEDDED
from nodebench.spec.solver import Solver
from tests.support.controlled_solves import TIMES, Turning, by, solved, uneven
from tests.support.ode_problems import DECAY, LOGISTIC

IN_TORCHDIFFEQ = ["adaptive_heun", "fehlberg2", "bosh3", "dopri5", "dopri8"]


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("method", IN_TORCHDIFFEQ)
def test_one_step_a_batch_is_torchdiffeqs_solve(method: str, times: tuple[float, ...]) -> None:
    ours = solved(by("batch", method), uneven(), times)
    theirs = solved(Solver(method=method, tol=1e-5), uneven(), times)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-12, atol=1e-12)
    assert ours[1:] == theirs[1:]


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("method", IN_TORCHDIFFEQ)
def test_a_batch_of_one_sample_with_steps_of_its_own_is_too(
    method: str, times: tuple[float, ...]
) -> None:
    states, evaluations, counts = solved(by("sample", method), uneven()[3:4], times)
    theirs = solved(Solver(method=method, tol=1e-5), uneven()[3:4], times)
    torch.testing.assert_close(states, theirs[0], rtol=1e-12, atol=1e-12)
    assert evaluations == theirs[1]
    assert (counts.accepted, counts.rejected) == (theirs[2].accepted, theirs[2].rejected)
    assert counts.of_samples is not None
    assert counts.of_samples.tolist() == [evaluations]


def test_steps_of_torchdiffeqs_solvers_are_counted() -> None:
    _, evaluations, counts = solved(Solver(method="dopri5", tol=1e-9), uneven(), field=Turning)
    assert counts.rejected > 0
    assert evaluations == 2 + 6 * (counts.accepted + counts.rejected)


def test_one_step_a_batch_takes_the_norm_that_it_is_given() -> None:
    """As solves with a regularizer's integrals need it, whose errors do not count."""

    def norm(state: State) -> Tensor:
        return state[0][:, 0].square().mean().sqrt()

    f, found = Turning(), []
    for solver in (by("batch"), Solver(method="dopri5", tol=1e-5)):
        with torch.no_grad():
            states = solve(lambda t, y: (f(t, y[0]),), (uneven(),), (0.0, 1.0), solver, norm).states
        found.append(states[-1][0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        default = solved(by("batch"), uneven(), field=Turning)[0][-1]
    assert (default - found[0]).abs().max() > 1e-9


# ------------------------------------------------------------------------------ tsit5, and orders


def exact(rows: Any) -> np.ndarray:
    """Floats as fractions: their products and sums are not rounded, on any machine."""
    return np.vectorize(Fraction, otypes=[object])(np.asarray(rows, dtype=float))


def elementary_weights(b: np.ndarray, a: np.ndarray, c: np.ndarray) -> dict[int, list[Fraction]]:
    """What the conditions of each order are off by."""
    ac, acc = a @ c, a @ c**2
    sums = {
        1: [(b.sum(), 1)],
        2: [(b @ c, 2)],
        3: [(b @ c**2, 3), (b @ ac, 6)],
        4: [(b @ c**3, 4), (b @ (c * ac), 8), (b @ acc, 12), (b @ a @ ac, 24)],
        5: [
            (b @ c**4, 5), (b @ (c**2 * ac), 10), (b @ ac**2, 20), (b @ (c * acc), 15),
            (b @ a @ c**3, 20), (b @ (c * (a @ ac)), 30), (b @ a @ (c * ac), 40),
            (b @ a @ acc, 60), (b @ a @ a @ ac, 120),
        ],
    }  # fmt: skip
    return {order: [x - Fraction(1, n) for x, n in pairs] for order, pairs in sums.items()}


def test_tsit5_has_order_five_and_an_estimate_of_order_four() -> None:
    tableau = EMBEDDED["tsit5"]
    rows = np.zeros((7, 7))
    for i, row in enumerate(tableau.a):
        rows[i, : len(row)] = row
    a, b, c, e = (exact(part) for part in (rows, tableau.b, tableau.c, tableau.e))
    assert np.abs(a.sum(1) - c).max() < 1e-15
    for order, off in elementary_weights(b, a, c).items():
        assert np.abs(off).max() < 1e-15, order
    embedded = elementary_weights(b - e, a, c)
    assert max(np.abs(embedded[order]).max() for order in (1, 2, 3, 4)) < 1e-15
    assert np.abs(embedded[5]).max() > 1e-4
    assert (a[-1] == b).all()


@pytest.mark.parametrize("method", ["dopri5", "tsit5"])
def test_its_steps_converge_with_order_five(method: str) -> None:
    def error(n: int) -> float:
        grid = [i / n for i in range(n + 1)]
        f = lambda t, y: (DECAY.f(t, y[0]),)  # noqa: E731
        solver = Solver(method=method, tol=1e-3)
        ((y,),) = integrate(f, (DECAY.y0,), [grid], stepper_of(solver))[-1:]
        return float((y - DECAY.exact(1.0)).abs().max())

    assert math.log2(error(16) / error(32)) == pytest.approx(5, abs=0.2)


@pytest.mark.parametrize("step", ["batch", "sample"])
@pytest.mark.parametrize("controller", ["i", "pi"])
def test_errors_follow_the_tolerance(controller: str, step: str) -> None:
    for tol in (1e-3, 1e-6, 1e-9):
        solver = by(step, "tsit5", tol, controller=controller)
        states, _, _ = solved(solver, LOGISTIC.y0[:, None], field=Logistic)
        error = (states[-1].squeeze(1) - LOGISTIC.exact(1.0)).abs().max()
        assert tol / 1000 < error < 6 * tol


class Logistic(nn.Module):
    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        return LOGISTIC.f(t, y)
