"""Methods whose steps can be taken back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchdiffeq._impl.odeint import SOLVERS

from nodebench.ode.fixed import Grid, steps
from nodebench.ode.solve import solve
from nodebench.ode.steppers.reversible import ReversibleStepper
from nodebench.ode.steppers.stepper import RightHandSide
from nodebench.ode.steppers.table import stepper_of
from nodebench.ode.tableau import EMBEDDED
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import METHODS
from tests.support.ode_problems import DECAY, TIME_DEPENDENT
from tests.support.tiny_fields import FIXED

METHODS_AND_ORDERS = [
    ({"method": "alf"}, 2),
    ({"method": "alf", "damping": 0.9}, 1),
    ({"method": "reversible_heun"}, 2),
    *(({"method": method, "coupling": 0.5}, METHODS[method].order) for method in FIXED),
]


def field(t: float | Tensor, y: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (TIME_DEPENDENT.f(t, y[0]),)


@pytest.mark.parametrize(("settings", "order"), METHODS_AND_ORDERS, ids=str)
def test_a_reversible_method_converges_with_its_order(settings, order) -> None:
    """Near 1, a coupling takes very many steps until its order shows; at 1/2, few."""
    counts, errors = (16, 32, 64), []
    for count in counts:
        solver = Solver(**settings, steps=count)
        f = lambda t, y: (DECAY.f(t, y[0]),)  # noqa: E731
        (y,) = solve(f, (DECAY.y0,), (0.0, 2.0), solver).states[-1]
        errors.append((y - DECAY.exact(2.0)).norm().item())
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.25)


def there_and_back(f: RightHandSide, stepper: ReversibleStepper, y0: Tensor, count: int) -> Tensor:
    carry = stepper.start(f, 0.0, (y0,))
    taken = list(steps(Grid(0.0, 1.0, count)))
    for t, h in taken:
        carry = stepper.step(f, t, h, carry)
    for t, h in reversed(taken):
        carry = stepper.back(f, t, h, carry)
    return carry[0][0]


@pytest.mark.parametrize("settings", [each for each, _ in METHODS_AND_ORDERS], ids=str)
def test_run_backwards_it_is_where_it_started(settings) -> None:
    near_one = {"coupling": 0.9} if "coupling" in settings else {}
    stepper = stepper_of(Solver(**settings | near_one, steps=1))
    assert isinstance(stepper, ReversibleStepper)
    back = there_and_back(field, stepper, TIME_DEPENDENT.y0, 20)
    torch.testing.assert_close(back, TIME_DEPENDENT.y0, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "settings", [{"method": "alf", "damping": 0.75}, {"method": "rk4", "coupling": 0.5}], ids=str
)
def test_damping_and_coupling_magnify_rounding_on_the_way_back(settings) -> None:
    """By 1/|1 - 2η| or 1/λ a step: many such steps cannot be taken back."""
    stepper = stepper_of(Solver(**settings, steps=1))
    assert isinstance(stepper, ReversibleStepper)
    back = there_and_back(field, stepper, TIME_DEPENDENT.y0, 60)
    assert not torch.allclose(back, TIME_DEPENDENT.y0, rtol=1e-3)


@pytest.mark.parametrize("method", sorted(EMBEDDED.keys() & SOLVERS.keys()))
def test_an_embedded_tableau_is_torchdiffeqs(method) -> None:
    theirs = SOLVERS[method].tableau
    ours = EMBEDDED[method]
    assert ours.c[1:] == tuple(theirs.alpha.tolist())
    for a, beta in zip(ours.a[1:], theirs.beta, strict=True):
        assert a == tuple(beta.tolist())
    assert ours.b == tuple(theirs.c_sol.tolist())
    assert ours.e == pytest.approx(theirs.c_error.tolist(), abs=1e-15)
