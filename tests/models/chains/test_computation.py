"""Tests of models/chains/computation.py, by solves along chains: what autograd asks of them."""

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from nodebench.models.chains.computation import _Computed
from nodebench.training.machine import memory_of
from tests.support.image_fields import TIMES, are_equal, are_near, block, field, images, solved


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_a_solve_is_one_operation_of_autograd(method):
    _, *states = block(field(), method).states(images(), TIMES)
    (node,) = {state.grad_fn for state in states}
    assert node is not None
    assert node.name() == f"{_Computed.__name__}Backward"


@pytest.mark.parametrize("weights", [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)])
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_outputs_that_the_loss_does_not_use_have_no_gradient(method, weights, step_by_step):
    f, y = field(), images()
    whole = solved(block(f, method), y, weights)
    step_by_step()
    are_equal(whole, solved(block(f, method), y, weights))


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


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own use
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


def test_gradients_that_do_not_arrive_are_no_gradients():
    class Stop(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, by_out):
            return None

    y = images()
    (Stop.apply(block(field())(y)).sum() + y.sum()).backward()
    assert torch.equal(y.grad, torch.ones_like(y))
