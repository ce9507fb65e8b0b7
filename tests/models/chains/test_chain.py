"""Tests of models/chains/chain.py, by the right-hand sides that are made of chains."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from nodebench.models.chains.chain import Chain
from nodebench.models.chains.computation import _Computed
from nodebench.models.dynamics import Dynamics, _chained
from nodebench.models.layers.conv import Conv2d
from nodebench.models.layers.group_norm import GroupNorm
from nodebench.ode.regularizers.forward_mode import directional
from nodebench.spec.vocabulary import DYNAMICS
from nodebench.training.machine import memory_of
from tests.support.image_fields import are_near, field, images

LAST = torch.channels_last


def gradients(f: Dynamics, y: Tensor, t: float = 0.7) -> list[Tensor]:
    """The output, and what the state and the parameters have as gradients."""
    out = f(t, y)
    by_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out)
    return [out, *torch.autograd.grad(out, [y, *f.parameters()], by_out)]


def by_torch(y: Tensor) -> Tensor:
    """The same state in another layout, of which torch's own operations take care."""
    return y.detach().contiguous().requires_grad_()


@pytest.mark.parametrize("dynamics", DYNAMICS)
@pytest.mark.parametrize("norm", ["ln", "gn", "bn", "wn", "nf"])
def test_right_hand_sides_in_chains_have_the_values_and_gradients_of_torch(dynamics, norm):
    f, y = field(dynamics, norm), images()
    kinds = {type(each) for each in _chained(f.layers, y)}
    assert Chain in kinds
    assert (kinds == {Chain}) == (norm != "bn")
    are_near(gradients(f, y), gradients(f, by_torch(y)))


@pytest.mark.parametrize("dynamics", DYNAMICS)
@pytest.mark.parametrize("batch", [1, 5, 8])
def test_values_are_the_same_bits_without_a_gradient(dynamics, batch):
    """Layers then write over what is no longer needed, but never over the state."""
    f, y = field(dynamics), images(batch)
    expected, before = f(0.7, y), y.detach().clone()
    with torch.no_grad():
        found = f(0.7, y)
    assert torch.equal(found, expected)
    assert torch.equal(y, before)


@pytest.mark.parametrize("dynamics", DYNAMICS)
@pytest.mark.parametrize("batch", [5, 9, 23])
@pytest.mark.parametrize("threads", [2, 3])
def test_several_threads_give_the_bits_of_one(dynamics, batch, threads):
    f, y = field(dynamics), images(batch)

    def found() -> list[Tensor]:
        with torch.no_grad():
            value = f(0.7, y)
        return [value, *gradients(f, y)]

    expected = found()
    torch.set_num_threads(threads)
    together = found()
    for ours, alone in zip(together[:3], expected[:3], strict=True):  # torch sums over samples
        assert torch.equal(ours, alone)
    are_near(together, expected)


@pytest.mark.parametrize(("act", "chains"), [("tanh", 3), ("none", 1)])
def test_activations_that_are_not_compiled_part_chains(act, chains):
    f, y = field(act=act), images()
    assert [type(each) for each in _chained(f.layers, y)].count(Chain) == chains
    are_near(gradients(f, y), gradients(f, by_torch(y)))


@pytest.mark.parametrize(
    ("kinds", "operations"),
    [
        ("conv act norm", 2), ("norm act conv", 2), ("conv act strided", 2), ("norm act norm", 2),
        ("act conv act", 3), ("conv act act norm", 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.3, math.nan, math.inf, -math.inf])
def test_the_neighbours_of_a_relu_do_it_to_the_same_bits(kinds, operations, dtype, value):
    """As if each layer were an operation of its own."""
    torch.manual_seed(0)
    layers: dict[str, Callable[[], nn.Module]] = {
        "conv": partial(Conv2d, 16, 16, 3, padding=1),
        "strided": partial(Conv2d, 16, 16, 3, padding=1, stride=2),
        "norm": partial(GroupNorm, 4, 16),
        "act": nn.ReLU,
    }
    model = nn.Sequential(*(layers[kind]() for kind in kinds.split()))
    model.to(dtype, memory_format=LAST)
    x = images().detach().to(dtype)
    x[0, :3] = value
    x.requires_grad_()
    (chain,) = _chained(model, x)
    assert isinstance(chain, Chain)
    assert len(chain.operations) == operations

    def found(f: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
        out = f(x)
        return [out, *torch.autograd.grad(out, [x, *model.parameters()], torch.ones_like(out))]

    together, apart = found(partial(chain, 0.0), x), found(model, x)
    for ours, one_by_one in zip(together, apart, strict=True):
        torch.testing.assert_close(ours, one_by_one, rtol=0, atol=0, equal_nan=True)


def test_a_chain_is_one_operation_of_autograd():
    out = field()(0.0, images())
    assert out.grad_fn is not None
    assert out.grad_fn.name() == f"{_Computed.__name__}Backward"


@pytest.mark.parametrize("batch", [50, 100])
def test_what_a_chain_keeps_is_counted_in_a_step_s_memory(batch):
    """The output of each norm and convolution: the inputs of those that come after, and ReLU's."""
    f, y = field("preact").requires_grad_(False), images(batch)
    kept = []

    def evaluate() -> None:
        kept.append(f(0.7, y))

    state = y.numel() * y.element_size()
    evaluate()
    found = memory_of(torch.device("cpu"), evaluate)
    assert 4 * state < found < 7 * state
    with torch.no_grad():
        assert memory_of(torch.device("cpu"), evaluate) < 4 * state

    def pull() -> None:
        f(0.7, y).sum().backward()

    assert memory_of(torch.device("cpu"), pull) < 11 * state  # the gradients of all layers too


def test_weights_that_change_before_the_backward_pass_are_an_error():
    f, y = field("preact"), images()
    out = f(0.7, y).sum()
    with torch.no_grad():
        for parameter in f.parameters():
            parameter.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


def test_gradients_that_nobody_needs_are_not_made():
    f, y = field("preact"), images()
    everything = gradients(f, y)
    f.requires_grad_(False)
    (by_y,) = torch.autograd.grad(f(0.7, y), y, _by_out(y))
    torch.testing.assert_close(by_y, everything[1], rtol=1e-12, atol=1e-12)
    first, *others = f.parameters()
    others[-1].requires_grad_()
    found = torch.autograd.grad(f(0.7, y.detach()), others[-1], _by_out(y))
    torch.testing.assert_close(found[0], everything[-1], rtol=1e-12, atol=1e-12)
    first.requires_grad_()
    assert f(0.7, y.detach()).requires_grad


def _by_out(y: Tensor) -> Tensor:
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y)


@pytest.mark.parametrize("dynamics", ["postnorm", "prenorm"])
def test_a_gradient_can_be_differentiated(dynamics):
    """As a field may ask for that takes gradients itself."""
    f = field(dynamics)

    def curvature(y: Tensor) -> list[Tensor]:
        (by_y,) = torch.autograd.grad(f(0.3, y).pow(3).sum(), y, create_graph=True)
        return list(torch.autograd.grad(by_y.pow(2).sum(), [y, *f.parameters()]))

    are_near(curvature(images()), curvature(by_torch(images())))


def test_gradients_of_two_steps_that_can_be_differentiated_are_the_gradients():
    """The second step's input depends on the weights itself, a way that counts once."""
    f, y = field(), images()
    y1 = y + 0.5 * f(0.0, y)
    loss = (y1 + 0.5 * f(0.5, y1)).pow(2).sum()
    weights = list(f.parameters())
    plain = torch.autograd.grad(loss, weights, retain_graph=True)
    again = torch.autograd.grad(loss, weights, create_graph=True)
    are_near(list(again), list(plain))


def test_a_backward_pass_can_be_taken_twice():
    f, y = field(), images()
    loss = f(0.7, y).sum()
    first = torch.autograd.grad(loss, [y, *f.parameters()], retain_graph=True)
    second = torch.autograd.grad(loss, [y, *f.parameters()])
    assert all(map(torch.equal, first, second))


def test_an_output_that_changes_before_the_backward_pass_is_an_error():
    f, y = field("postact"), images()
    out = f(0.7, y)
    with torch.no_grad():
        out.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize(
    "listen",
    [
        lambda layer, note: layer.register_forward_hook(lambda *_: note()),
        lambda layer, note: layer.register_forward_pre_hook(lambda *_: note()),
        lambda layer, note: layer.register_full_backward_hook(lambda *_: note()),
        lambda layer, note: layer.register_full_backward_pre_hook(lambda *_: note()),
    ],
)
@pytest.mark.parametrize("norm", ["ln", "nf"])
def test_hooks_of_layers_are_called(listen, norm):
    f, y = field(norm=norm), images()
    called = []
    for layer in f.layers:
        listen(layer, lambda: called.append(1))
    f(0.7, y).sum().backward()
    assert len(called) == len(f.layers)


def test_transforms_are_torchs_own():
    f, y = field(), images().detach()
    each = torch.func.vmap(lambda one: f(0.7, one))(torch.stack([y, y + 1]))
    torch.testing.assert_close(each[1], f(0.7, y + 1))
    along = directional(lambda one: f(0.7, one), (y,), (torch.ones_like(y),))
    step = 1e-6
    slope = (f(0.7, y + step) - f(0.7, y - step)) / (2 * step)
    torch.testing.assert_close(along, slope, rtol=1e-5, atol=1e-5)


def test_weights_that_a_transform_has_wrapped_are_torchs_own():
    """As in packs of seeds: each has its weights, and at first all have the same state."""
    f, y = field(), images().detach()
    weights = {name: torch.stack([p.detach(), 2 * p.detach()]) for name, p in f.named_parameters()}

    def output(weights: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(f, weights, (0.7, y))

    both = torch.func.vmap(output)(weights)
    torch.testing.assert_close(both[0], f(0.7, y))
    second = torch.func.functional_call(f, {k: w[1] for k, w in weights.items()}, (0.7, y))
    torch.testing.assert_close(both[1], second)


def test_times_may_be_tensors():
    f, y = field(), images()
    t = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(f(t, y), f(0.7, y))
    (by_t,) = torch.autograd.grad(f(t, y).sum(), t)
    assert by_t.item() != 0
