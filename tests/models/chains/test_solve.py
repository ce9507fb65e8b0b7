"""Tests of models/chains/solve.py: solves as one operation, beside torch's own steps."""

import math
import time

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from nodebench.errors import DeadlineExceeded, Diverged, EvaluationLimit
from nodebench.models.chains.computation import _Computed
from nodebench.models.chains.solve import TOGETHER
from nodebench.models.dynamics import Dynamics
from nodebench.ode.block import ODEBlock
from nodebench.ode.tableau import EMBEDDED
from nodebench.spec.solver import Gradient, Solver
from nodebench.spec.vocabulary import DYNAMICS, METHODS
from nodebench.training.machine import memory_of
from tests.support.image_fields import are_near, field, images

TIMES = (0.0, 0.4, 1.0, 1.5)
METHODS_OF_CHAINS = [
    name
    for name, method in METHODS.items()
    if method.kind == "fixed" and not Solver(method=name, steps=1).is_reversible
] + list(EMBEDDED)


def block(f: Dynamics, method: str = "rk4", steps: int = 3) -> ODEBlock:
    size = {"tol": 1e-3} if method in EMBEDDED else {"steps": steps}
    return ODEBlock(f, Solver(method=method, **size), Gradient(name="backprop"))


@pytest.fixture
def step_by_step(monkeypatch):
    """Has torch take the steps in what follows."""
    return lambda: monkeypatch.setattr(Dynamics, "whole_solve", lambda *_: None)


def solved(of: ODEBlock, y: Tensor, weights: tuple[float, ...] = (1.0, 0.7, -2.0)) -> list[Tensor]:
    """The states at all times, and the gradients of a loss that weighs these."""
    _, *states = of.states(y, TIMES)
    generator = torch.Generator().manual_seed(2)
    by_states = [torch.randn(y.shape, generator=generator, dtype=y.dtype) for _ in states]
    terms = zip(weights, states, by_states, strict=True)
    loss = sum(weight * (state * by).sum() for weight, state, by in terms if weight)
    assert isinstance(loss, Tensor)
    return [*states, *torch.autograd.grad(loss, [y, *of.parameters()])]


def are_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    assert all(map(torch.equal, found, expected))


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


@pytest.mark.parametrize("weights", [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)])
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_outputs_that_the_loss_does_not_use_have_no_gradient(method, weights, step_by_step):
    f, y = field(), images()
    whole = solved(block(f, method), y, weights)
    step_by_step()
    are_equal(whole, solved(block(f, method), y, weights))


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


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_a_solve_is_one_operation_of_autograd(method):
    _, *states = block(field(), method).states(images(), TIMES)
    (node,) = {state.grad_fn for state in states}
    assert node is not None
    assert node.name() == f"{_Computed.__name__}Backward"


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


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_gradients_that_nobody_needs_are_not_made(method):
    f, y = field(), images()
    of, last = block(f, method), list(f.parameters())[-1]
    by_y, *_, by_last = torch.autograd.grad(of(y).sum(), [y, *f.parameters()])
    f.requires_grad_(False)
    are_equal(list(torch.autograd.grad(of(y).sum(), y)), [by_y])
    last.requires_grad_()
    are_equal(list(torch.autograd.grad(of(y.detach()).sum(), last)), [by_last])


@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5"])
def test_a_gradient_can_be_differentiated(method, step_by_step):
    of = block(field("prenorm"), method)

    def curvature() -> list[Tensor]:
        y = images()
        _, middle, *_, last = of.states(y, TIMES)
        (by_y,) = torch.autograd.grad((middle * last).sum(), y, create_graph=True)
        return list(torch.autograd.grad(by_y.pow(2).sum(), [y, *of.parameters()]))

    whole = curvature()
    step_by_step()
    are_near(whole, curvature())


def test_a_gradient_over_no_time_can_be_differentiated():
    y = images()
    _, middle, _ = block(field(), "dopri5").states(y, (0.0, 0.0, 1.0))
    (by_y,) = torch.autograd.grad(middle.pow(2).sum(), y, create_graph=True)
    torch.testing.assert_close(by_y, 2 * y)


def test_a_gradient_over_no_time_has_memory_of_its_own():
    y, by = images(), torch.ones_like(images().detach())
    _, middle, _ = block(field(), "dopri5").states(y, (0.0, 0.0, 1.0))
    assert middle.data_ptr() != y.data_ptr()
    for _ in range(2):
        middle.backward(by, retain_graph=True)
    assert torch.equal(by, torch.ones_like(by))
    assert torch.equal(y.grad, 2 * by)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_a_backward_pass_can_be_taken_twice(method):
    of, y = block(field(), method), images()
    loss = of(y).sum()
    first = torch.autograd.grad(loss, [y, *of.parameters()], retain_graph=True)
    are_equal(list(first), list(torch.autograd.grad(loss, [y, *of.parameters()])))


@pytest.mark.parametrize("number", [1, 2])
def test_a_state_that_changes_before_the_backward_pass_is_an_error(number):
    states = block(field()).states(images(), TIMES)
    with torch.no_grad():
        states[number].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        states[-1].sum().backward()


@pytest.mark.parametrize(("method", "number"), [("rk4", 3), ("dopri5", 1), ("dopri5", 3)])
def test_a_state_that_the_gradient_does_not_take_may_change(method, number):
    """The last one, and any of an embedded method, whose first stage is the last of before."""
    of, y = block(field(), method), images()
    expected = torch.autograd.grad(of.states(y, TIMES)[-1].sum(), y)
    states = of.states(y, TIMES)
    with torch.no_grad():
        states[number].mul_(2)
    are_equal(list(torch.autograd.grad(states[-1].sum(), y)), list(expected))


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


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_transforms_around_a_solve_are_torchs_own(method, step_by_step):
    of, y = block(field(), method), images().detach()

    def found() -> Tensor:
        return torch.func.grad(lambda scale: (of(y) * scale).sum())(torch.ones_like(y))

    expected = of(y)
    torch.testing.assert_close(found(), expected)
    with torch.no_grad(), forward_ad.dual_level():
        out = of(forward_ad.make_dual(y, torch.ones_like(y)))
        along = forward_ad.unpack_dual(out).tangent
    step = 1e-6
    slope = (of(y + step) - of(y - step)) / (2 * step)
    if method == "rk4":  # dopri5 may choose other steps
        torch.testing.assert_close(along, slope, rtol=1e-5, atol=1e-5)
    assert along is not None


def test_nothing_is_kept_where_nothing_needs_a_gradient():
    f, y = field().requires_grad_(False), images(100).detach()
    of, state = block(f, "euler", 40), y.numel() * y.element_size()
    of(y)
    assert memory_of(torch.device("cpu"), lambda: of(y)) < 8 * state


def test_weights_that_a_transform_has_wrapped_are_torchs_own():
    of, y = block(field()), images().detach()
    weights = {name: torch.stack([p.detach(), 2 * p.detach()]) for name, p in of.named_parameters()}
    both = torch.func.vmap(lambda own: torch.func.functional_call(of, own, (y,)))(weights)
    torch.testing.assert_close(both[0], of(y))


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
