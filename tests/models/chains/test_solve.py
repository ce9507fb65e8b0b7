"""Tests of models/chains/solve.py: solves as one operation, beside torch's own steps."""

import math
import time

import pytest
import torch
from torch import Tensor, nn

from nodebench.errors import DeadlineExceeded, Diverged, EvaluationLimit
from nodebench.models.chains.solve import TOGETHER
from nodebench.models.dynamics import Dynamics
from nodebench.ode.block import ODEBlock
from nodebench.ode.tableau import EMBEDDED
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import DYNAMICS, METHODS
from nodebench.training.machine import memory_of
from tests.support.image_fields import TIMES, are_equal, are_near, block, field, images, solved

METHODS_OF_CHAINS = [
    name
    for name, method in METHODS.items()
    if method.kind == "fixed" and not Solver(method=name, steps=1).is_reversible
] + list(EMBEDDED)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("method", "dynamics"),
    [
        *((method, dynamics) for method in ("rk4", "dopri5") for dynamics in DYNAMICS),
        *((method, "prenorm") for method in METHODS_OF_CHAINS if method not in ("rk4", "dopri5")),
    ],
)
def test_states_and_gradients_have_the_bits_of_steps_by_torch(
    method, dynamics, dtype, step_by_step
):
    f, y = field(dynamics).to(dtype), images(9).detach().to(dtype).requires_grad_()
    whole = solved(block(f, method), y)
    step_by_step()
    are_equal(whole, solved(block(f, method), y))


@pytest.mark.parametrize("norm", ["gn", "wn", "sn", "nf"])
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_so_they_have_with_every_norm_that_is_compiled(method, norm, step_by_step):
    f, y = field(norm=norm).eval(), images()
    whole = solved(block(f, method), y)
    step_by_step()
    are_equal(whole, solved(block(f, method), y))


@pytest.mark.parametrize("times", [(0.0,), (0.0, 0.0, 1.0), (1.0, 0.2)])
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_times_may_be_one_or_equal_or_run_backwards(method, times, step_by_step):
    of = block(field(), method)

    def found() -> list[Tensor]:
        y = images()
        states = of.states(y, times)
        return [*states, *torch.autograd.grad(sum(y.pow(2).sum() for y in states), y)]

    whole = found()
    step_by_step()
    are_near(whole, found())


@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5"])
@pytest.mark.parametrize("batch", [1, 5, 8])
def test_states_are_the_same_bits_without_a_gradient(method, batch):
    """Arrays that are no longer needed are then written over, but never an output."""
    of, y = block(field(), method), images(batch)
    expected, before = of.states(y, TIMES), y.detach().clone()
    with torch.no_grad():
        found = of.states(y, TIMES)
    are_equal(found, expected)
    assert torch.equal(y, before)


@pytest.mark.parametrize("batch", [5, 9, 23])
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_several_threads_give_the_states_of_one(method, batch, threads):
    of, y = block(field(), method), images(batch)
    expected = solved(of, y)
    torch.set_num_threads(threads)
    found = solved(of, y)
    are_equal(found[: len(TIMES)], expected[: len(TIMES)])  # with dL/dy0
    are_near(found, expected)  # torch sums over samples


def test_the_hooks_of_a_right_hand_side_are_called():
    f, called = field(), []
    f.register_forward_hook(lambda *_: called.append(1))
    for method in ("rk4", "dopri5"):
        of = block(f, method)
        of(images())
        assert len(called) >= of.evaluations > 10
        called.clear()


@pytest.mark.parametrize("where", ["class", "instance", "every module"])
def test_a_right_hand_side_may_be_more_than_its_layers(where):
    """What overrides or hears its calls is not passed over."""

    class Twice(Dynamics):
        def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
            return 2 * super().forward(t, y)

    f, y, called = field(), images(), []
    expected = block(f)(y)
    if where == "class":
        f.__class__ = Twice
    elif where == "instance":
        f.forward = lambda t, y: 2 * Dynamics.forward(f, t, y)
    else:
        hook = nn.modules.module.register_module_forward_hook(lambda *_: called.append(1))
        torch.testing.assert_close(block(f)(y), expected)
        hook.remove()
        assert len(called) > 12
        return
    assert not torch.allclose(block(f)(y), expected)


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_evaluations_count_and_a_solve_ends_where_it_may_not_go_on(method, gradient, step_by_step):
    f, y = field(), images()
    of = block(f, method, 5)
    with torch.set_grad_enabled(gradient):
        of(y)
        count, steps = of.evaluations, list(of.step_counts)
        assert count >= 20
        of.deadline = time.monotonic() - 1
        with pytest.raises(DeadlineExceeded):
            of(y)
        of.deadline, of.max_evaluations = None, of.evaluations + count // 2
        with pytest.raises(EvaluationLimit):
            of(y)
        step_by_step()
        of = block(f, method, 5)
        of(y)
        assert (of.evaluations, of.step_counts) == (count, steps)


@pytest.mark.parametrize("gradient", [True, False])
def test_a_right_hand_side_that_is_not_finite_ends_an_adaptive_solve(gradient):
    f, y = field(), images()
    of = block(f, "dopri5")
    of(y)
    with torch.no_grad():
        list(f.parameters())[-1].fill_(math.nan)
    with torch.set_grad_enabled(gradient), pytest.raises(Diverged):
        of(y)


def test_a_deadline_is_seen_in_the_middle_of_a_solve(monkeypatch):
    """Between evaluations that are done together, and not only when all are done."""
    of, y = block(field(), "euler", 10 * TOGETHER), images()
    now = [0.0]
    monkeypatch.setattr("nodebench.ode.block.time.monotonic", lambda: now[0])
    of.deadline = 1.0
    run = "nodebench.models.chains.operation._take_through"

    def take_through(samples, fills):
        now[0] += 0.4

    monkeypatch.setattr(run, take_through)
    with torch.no_grad(), pytest.raises(DeadlineExceeded):
        of(y)
    assert of.evaluations == 3 * TOGETHER + 1


def test_what_a_solve_keeps_is_counted_in_a_steps_memory(step_by_step):
    f, y, kept = field("preact").requires_grad_(False), images(100), []
    of = block(f, "euler", 10)
    state = y.numel() * y.element_size()

    def pull() -> None:
        of(y).sum().backward()

    def solve() -> None:
        kept.append(of(y))

    solve()
    with torch.no_grad():
        assert memory_of(torch.device("cpu"), solve) < 5 * state
    assert 40 * state < memory_of(torch.device("cpu"), solve) < 50 * state
    whole = memory_of(torch.device("cpu"), pull)
    step_by_step()
    assert whole < memory_of(torch.device("cpu"), pull) + 4 * state


@pytest.mark.parametrize("dynamics", ["postnorm", "preact"])
def test_recomputation_does_not_keep_what_a_solve_keeps(dynamics):
    y, found = images(100), {}
    for name, gradient in (
        ("backprop", Gradient(name="backprop")),
        ("recompute", Gradient(name="recompute", segments="auto")),
    ):
        of = ODEBlock(field(dynamics), Solver(method="euler", steps=36), gradient)

        def pull(of: ODEBlock = of) -> None:
            of(y).sum().backward()

        pull()
        found[name] = memory_of(torch.device("cpu"), pull)
    assert found["recompute"] < found["backprop"] / 3
