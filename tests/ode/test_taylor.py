"""Taylor coefficients against nested derivatives in forward mode, layer by layer and of fields."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from nodebench.models.dynamics import Autonomous, Dynamics
from nodebench.models.layers.conv import Conv2d, convolved
from nodebench.models.layers.factory import LayerFactory
from nodebench.ode.dense.field import DenseField
from nodebench.ode.field import Field
from nodebench.ode.regularizers.forward_mode import directional
from nodebench.ode.taylor.rules import RULES, series_of
from nodebench.ode.taylor.series import Series
from nodebench.spec.vocabulary import ACTIVATIONS, DYNAMICS, NORM_WORDS

ORDERS = 4


def path(*shape: int) -> list[Tensor]:
    """The Taylor coefficients of a path."""
    torch.manual_seed(1)
    return [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for _ in range(ORDERS)]


def by_forward_mode(f: Field, t: float, rate: float, path: list[Tensor]) -> list[Tensor]:
    """The coefficients of f(t + rate s, y(s)), by nested derivatives by s."""

    def along(s: Tensor) -> Tensor:
        y = sum((c * s**k for k, c in enumerate(path)), torch.zeros_like(path[0]))
        return f(t + rate * s, y)

    found, derived = [], along
    for order in range(ORDERS):
        start = torch.zeros((), dtype=torch.float64)
        found.append(derived(start) / math.factorial(order))
        derived = lambda s, g=derived: directional(g, (s,), (torch.ones_like(s),))  # noqa: E731
    return found


class Norm(nn.Module):
    """A norm over dimensions by elementary functions: torch differentiates its own wrongly."""

    def __init__(self, norm: nn.Module, dims: tuple[int, ...]):
        super().__init__()
        self.norm, self.dims = norm, dims
        is_of_channels = not isinstance(norm, nn.LayerNorm)
        self.shape = (-1, 1) if is_of_channels else (-1,)

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(self.dims, keepdim=True)
        x = x / ((x * x).mean(self.dims, keepdim=True) + self.norm.eps).sqrt()
        if self.norm.weight is None:
            return x
        return x * self.norm.weight.view(self.shape) + self.norm.bias.view(self.shape)


def by_hand(layer: nn.Module) -> nn.Module:
    """The layer, or what is the same to it and is differentiated rightly."""
    if isinstance(layer, nn.LayerNorm):
        return Norm(layer, (2,))
    if isinstance(layer, nn.BatchNorm1d) and layer.training:
        return Norm(layer, (0, 2))
    return Norm(layer, (2,)) if isinstance(layer, nn.InstanceNorm1d) else layer


def assert_alike(series: Series | None, expected: list[Tensor], given: list[Tensor]) -> None:
    """The same coefficients, and gradients of a number made of all."""
    assert series is not None
    found = [series(coefficient) for coefficient in given]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    weights = [torch.randn_like(each) for each in found]
    gradients = [
        torch.autograd.grad(sum((w * c).sum() for w, c in zip(weights, each, strict=True)), given)
        for each in (found, expected)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


LAYERS = {
    "linear": nn.Linear(4, 4), "convolution": nn.Conv1d(4, 4, 3, padding=1),
    "weight norm": parametrizations.weight_norm(nn.Conv1d(4, 4, 3, padding=1)),
    "relu": nn.ReLU(), "leaky relu": nn.LeakyReLU(0.2), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(),
    "softplus": nn.Softplus(), "steeper softplus": nn.Softplus(beta=3.0),
    "elu": nn.ELU(), "elu to minus two": nn.ELU(alpha=2.0), "silu": nn.SiLU(),
    "identity": nn.Identity(), "group norm": nn.GroupNorm(2, 4),
    "layer norm": nn.LayerNorm(4), "plain layer norm": nn.LayerNorm(4, elementwise_affine=False),
    "batch norm": nn.BatchNorm1d(4), "batch norm in evaluation mode": nn.BatchNorm1d(4).eval(),
    "batch norm without statistics": nn.BatchNorm1d(4, affine=False, track_running_stats=False),
    "instance norm": nn.InstanceNorm1d(4),
    "affine instance norm": nn.InstanceNorm1d(4, affine=True),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_the_coefficients_of_a_layer_are_those_of_forward_mode(name: str) -> None:
    layer = LAYERS[name].double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    given = path(3, 4, 4)
    expected = by_forward_mode(Autonomous(by_hand(layer)), 0.0, 1.0, given)
    torch.testing.assert_close(expected[0], layer(given[0]), rtol=1e-12, atol=1e-12)
    assert_alike(series_of([layer]), expected, given)


def test_an_instance_norm_may_have_no_batch() -> None:
    (x, *_), norm = path(4, 5), nn.InstanceNorm1d(4, affine=True).double()
    series = series_of([norm])
    assert series is not None
    torch.testing.assert_close(series(x), norm(x), rtol=1e-12, atol=1e-12)


def test_every_rule_is_tested() -> None:
    of_images = {nn.Conv2d, nn.BatchNorm2d, nn.InstanceNorm2d}
    assert {
        kind for kind in RULES if kind in map(type, LAYERS.values())
    } | of_images == RULES.keys()


@pytest.mark.parametrize("norm", ["gn", "bn", "ln+wn", "in", "sn", "nf"])
@pytest.mark.parametrize("name", ["preact", "postnorm", "prenorm"])
def test_the_coefficients_of_a_right_hand_side_are_those_of_forward_mode(
    name: str, norm: str
) -> None:
    f = Dynamics(name, 8, LayerFactory(norm, "tanh")).double().eval()
    given = path(2, 8, 3, 3)
    series = f.series(0.3, 2.0)
    for at, layer in enumerate(f.layers):
        if isinstance(layer, nn.InstanceNorm2d):  # torch's derivatives of which are wrong
            f.layers[at] = nn.GroupNorm(8, 8, affine=False)
    assert_alike(series, by_forward_mode(f, 0.3, 2.0, given), given)


@pytest.mark.parametrize("norm", NORM_WORDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_norm_and_activation_of_a_sweep_file_has_rules(norm: str, activation: str) -> None:
    for name in DYNAMICS:
        assert Dynamics(name, 8, LayerFactory(norm, activation)).series(0.0, 1.0) is not None


def test_time_may_differ_between_samples() -> None:
    f = Dynamics("prenorm", 8, LayerFactory("gn", "tanh")).double()
    times = torch.tensor([0.1, 0.7], dtype=torch.float64)
    given = path(2, 8, 3, 3)
    series = f.series(times.view(2, 1, 1, 1), 1.0)
    assert series is not None
    alone = [f.series(t, 1.0) for t in times.tolist()]
    for coefficient in given:
        apart = [one(coefficient[i : i + 1]) for i, one in enumerate(alone) if one is not None]
        torch.testing.assert_close(series(coefficient), torch.cat(apart), rtol=1e-12, atol=1e-12)


def test_dense_fields_have_series() -> None:
    g = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    given = path(5, 2)
    for f in (DenseField(g), Autonomous(g)):
        assert_alike(f.series(0.0, 1.0), by_forward_mode(f, 0.0, 1.0, given), given)


@pytest.mark.parametrize("norm", ["gn", "ln+wn", "bn", "sn"])
@pytest.mark.parametrize("name", ["preact", "postnorm", "prenorm"])
def test_compiled_convolutions_give_the_coefficients_of_torch(name: str, norm: str) -> None:
    given = [coefficient.detach().float() for coefficient in path(8, 16, 5, 5)]
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(2)
        f = Dynamics(name, 16, LayerFactory(norm, "softplus")).to(memory_format=layout).eval()
        series = f.series(0.3, 1.0)
        assert series is not None
        ours = [series(coefficient.to(memory_format=layout)) for coefficient in given]
        sum(each.square().mean() for each in ours).backward()
        gradients = [p.grad for p in f.parameters() if p.grad is not None]
        found.append([*ours, *gradients])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_a_convolution_refuses_what_has_other_channels() -> None:
    conv = Conv2d(16, 16, 3).to(memory_format=torch.channels_last)
    x = torch.zeros(8, 8, 5, 5).to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="channels"):
        convolved(conv, x, conv.weight, None)


def test_what_has_code_of_its_own_has_no_series() -> None:
    class Mine(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    class Other(Autonomous):
        def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
            return super().forward(t, y) + 1

    class Residual(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return x + super().forward(x)

    for g in (Mine(2, 2), nn.Dropout(), nn.Softshrink()):
        assert Autonomous(nn.Sequential(g)).series(0.0, 1.0) is None
    for kind in (Autonomous, DenseField):
        assert kind(Residual(nn.Linear(2, 2))).series(0.0, 1.0) is None
        plain = kind(nn.Sequential(nn.Linear(2, 2)))
        for part in (plain, plain.g, plain.g[0]):
            assert plain.series(0.0, 1.0) is not None
            handle = part.register_forward_hook(lambda *_: None)
            assert plain.series(0.0, 1.0) is None
            handle.remove()
    assert Other(nn.Sequential(nn.Linear(2, 2))).series(0.0, 1.0) is None
