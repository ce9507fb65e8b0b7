"""Equations of motion: their solutions, their derivatives, and the networks that follow them."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from nodebench.models.build import build
from nodebench.models.dynamics import Autonomous, Dynamics
from nodebench.models.layers.factory import LayerFactory
from nodebench.models.motion import EQUATIONS_OF_MOTION, HeavyBall, MovingBlock, SecondOrder
from nodebench.ode.block import ODEBlock, ode_blocks, solved_by
from nodebench.ode.field import Field
from nodebench.ode.regularizers.forward_mode import directional
from nodebench.spec import vocabulary
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from tests.support.tiny_networks import DIGITS, MNIST, count, data, spec

TIGHT = Solver(method="dopri5", tol=1e-9)
PLAIN = {
    "folded": ("simple", (2,)), "simple": ("simple", (40,)), "linear": ("linear", (5,)),
    "conv": ("conv", (3, 6, 6)),
}  # fmt: skip


class Spring(Field):
    """f(t, [x; …]) = -4 x."""

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        return -4 * y[:, :1]


def at_end(f: Field, x: Tensor, t1: float) -> Tensor:
    """The position at t1 from rest, in float64."""
    block = ODEBlock(f.double(), TIGHT, Gradient(name="backprop"), t1)
    return MovingBlock(block, None)(x)


def test_the_table_has_every_motion_of_the_vocabulary_but_the_first_order() -> None:
    assert ["first-order", *EQUATIONS_OF_MOTION] == list(vocabulary.MOTIONS)


def test_a_spring_of_second_order_swings_as_a_cosine() -> None:
    x = torch.tensor([[1.0], [-0.5]], dtype=torch.float64)
    torch.testing.assert_close(at_end(SecondOrder(Spring()), x, 1.3), x * math.cos(2 * 1.3))


def test_a_heavy_ball_on_a_spring_is_the_damped_oscillator() -> None:
    ball = HeavyBall(Spring())
    ball.damping.data.fill_(0.4)
    damping = torch.sigmoid(torch.tensor(0.4, dtype=torch.float64)).item()
    rate, swing = damping / 2, math.sqrt(4 - damping**2 / 4)
    x, t = torch.tensor([[1.0], [-0.5]], dtype=torch.float64), 1.3
    closed = math.exp(-rate * t) * (math.cos(swing * t) + rate / swing * math.sin(swing * t))
    torch.testing.assert_close(at_end(ball, x, t), x * closed)


def test_the_damping_starts_at_a_twentieth() -> None:
    assert torch.sigmoid(HeavyBall(Spring()).damping).item() == pytest.approx(0.0474, abs=1e-4)


def test_a_generalized_heavy_ball_bounds_the_velocity_and_has_a_spring_of_its_own() -> None:
    ball = EQUATIONS_OF_MOTION["generalized-heavy-ball"](Spring())
    for parameter, value in ((ball.damping, 0.4), (ball.stiffness, 3.0)):
        parameter.data.fill_(value)
    x, v = torch.tensor([[1.0]]), torch.tensor([[2.0]])
    rates = ball(0.0, torch.cat((x, v), 1))
    expected = [math.tanh(2.0), -4.0 - 2.0 / (1 + math.exp(-0.4)) - 3.0]
    torch.testing.assert_close(rates, torch.tensor([expected]))


@pytest.mark.parametrize("name", EQUATIONS_OF_MOTION)
def test_the_coefficients_of_a_motion_are_those_of_forward_mode(name: str) -> None:
    inputs = 8 if name == "second-order" else 4
    f = EQUATIONS_OF_MOTION[name](
        Dynamics("postnorm", inputs, LayerFactory("gn", "tanh"), 4)
    ).double()
    for parameter in f.parameters():
        nn.init.normal_(parameter, std=0.5)
    y = [torch.randn(2, 8, 3, 3, dtype=torch.float64) for _ in range(3)]

    def along(s: Tensor) -> Tensor:
        return f(0.3 + 2.0 * s, y[0] + s * y[1] + s * s * y[2])

    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    slope = directional(along, (zero,), (one,))
    curve = directional(lambda s: directional(along, (s,), (one,)), (zero,), (one,)) / 2
    series = f.series(0.3, 2.0)
    assert series is not None
    for found, expected in zip(map(series, y), (along(zero), slope, curve), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_motion_has_no_series_if_its_field_has_none() -> None:
    assert HeavyBall(Spring()).series(0.0, 1.0) is None


@pytest.mark.parametrize("name", EQUATIONS_OF_MOTION)
def test_all_gradients_agree_on_a_network_with_a_velocity(name: str) -> None:
    settings = {"width": 8, "activation": "tanh", "initial_velocity": "learned"}
    trial = spec(name="plainode", motion=name, **settings)
    network = build(trial, data(2, classes=3)).double()
    x = torch.randn(4, 2, dtype=torch.float64)

    def gradients(gradient: Gradient, solver: Solver) -> list[Tensor]:
        with solved_by(network, solver, gradient):
            return list(torch.autograd.grad(network(x).square().sum(), list(network.parameters())))

    expected = gradients(Gradient(name="backprop"), TIGHT)
    for other in ("adjoint", "aca", "symplectic", "recompute"):
        found = gradients(Gradient(name=other), TIGHT)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    by_sample = Solver(method="dopri5", tol=1e-9, control={"step": "sample"})
    found = gradients(Gradient(name="backprop"), by_sample)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert all(each.abs().sum() > 0 for each in expected[:-1])


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("name", EQUATIONS_OF_MOTION)
def test_a_plain_ode_of_second_order_moves_its_input_from_rest(name: str, kind: str) -> None:
    field, shape = PLAIN[kind]
    network = build(spec(name="plainode", field=field, width=8, motion=name), data(*shape))
    seen: list[Tensor] = []
    (block,) = ode_blocks(network)
    block.register_forward_hook(lambda _module, inputs, output: seen.extend((*inputs, output)))
    x = torch.rand(4, *shape)
    logits = network(x)
    start, end = (state.flatten(1) for state in seen)
    half = start.shape[1] // 2
    assert torch.equal(start[:, :half], x.flatten(1))
    assert not start[:, half:].any()
    assert torch.equal(end[:, :half], x.flatten(1))  # Euler's first step moves no position
    assert end[:, half:].any()
    torch.testing.assert_close(logits, network.head(end[:, :half]))


def test_a_learned_velocity_is_a_network_like_the_field() -> None:
    learned = spec(name="odenet", width=8, motion="heavy-ball", initial_velocity="learned")
    network = build(learned, data(*DIGITS))
    (moving,) = network.feature
    seen: list[Tensor] = []
    moving.block.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    x = torch.rand(2, 8, 6, 6)
    moving(x)
    torch.testing.assert_close(seen[0][:, 8:], moving.initial_velocity(0.0, x))
    assert seen[0][:, 8:].abs().max() > 0.1


def test_parameter_counts() -> None:
    odenet = {"name": "odenet", "norm": "ln"}
    first = count(MNIST, **odenet)
    field = 2 * (9 * 64 * 65 + 128)
    more = {
        "second-order": 9 * 64 * 64,  # of filters over the velocity
        "heavy-ball": 1,
        "generalized-heavy-ball": 2,
    }
    for motion, parameters in more.items():
        assert count(MNIST, **odenet, motion=motion) == first + parameters
        learned = count(MNIST, **odenet, motion=motion, initial_velocity="learned")
        assert learned == first + parameters + field


def test_every_block_has_a_motion_of_its_own() -> None:
    network = build(spec(name="odenet", width=8, blocks=2, motion="heavy-ball"), data(*DIGITS))
    assert [type(block.f) for block in ode_blocks(network)] == [HeavyBall, HeavyBall]
    assert network(torch.rand(2, *DIGITS)).shape == (2, 10)


def test_a_learned_velocity_without_a_velocity_is_refused() -> None:
    with pytest.raises(ValidationError, match="needs a `motion` that has a velocity"):
        spec(name="plainode", initial_velocity="learned")


def test_a_norm_before_the_field_reads_position_and_velocity() -> None:
    wide = {"name": "odenet", "width": 24, "motion": "second-order"}
    with pytest.raises(ValidationError, match="48 channels are not a multiple of 32"):
        spec(**wide, dynamics="preact")
    for model in ({**wide, "dynamics": "preact", "norm": "ln"}, {**wide, "dynamics": "postnorm"}):
        assert build(spec(**model), data(*DIGITS))(torch.rand(2, *DIGITS)).shape == (2, 10)


def test_a_network_of_first_order_has_no_moving_block() -> None:
    assert not any(
        isinstance(part, MovingBlock | SecondOrder | Autonomous)
        for part in build(spec(name="odenet", width=8), data(*DIGITS)).modules()
    )
