"""Tests of recomputation in segments, and of what each gradient keeps in memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from nodebench.errors import InputError
from nodebench.ode.block import ODEBlock, one_pass
from nodebench.ode.dense.field import DenseField
from nodebench.ode.gradients.recompute import _cut
from nodebench.spec import TrialSpec
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from tests.support.memory_use import peak_bytes
from tests.support.tiny_fields import DOPRI5, RK4, Field, gradients, start

BACKPROP = Gradient(name="backprop")
SEGMENTS = (1, 2, 3, 7, 100, "auto")


def recompute(segments: int | str | None) -> Gradient:
    return Gradient(name="recompute", segments=segments)


# ---------------------------------------------------------------------------------- segments


@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 0.1, 0.3, 1.0), (1.0, 0.2)])
@pytest.mark.parametrize("segments", SEGMENTS)
def test_recomputing_in_segments_is_backprop_to_the_last_bit(
    segments: int | str, times: tuple[float, ...]
) -> None:
    solver = Solver(method="heun3", step_size=0.11)
    found, expected = (
        gradients(ODEBlock(Field(nn.BatchNorm1d(8)), solver, gradient), times)
        for gradient in (recompute(segments), BACKPROP)
    )
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("segments", SEGMENTS)
def test_a_dense_field_is_recomputed_in_segments_to_rounding(segments: int | str) -> None:
    def field() -> DenseField:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return DenseField(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double())

    found, expected = (
        gradients(ODEBlock(field(), RK4, gradient), (0.0, 0.3, 1.0))
        for gradient in (recompute(segments), BACKPROP)
    )
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-14)


def test_segments_leave_buffers_and_dropout_as_backprop_does() -> None:
    def found(gradient: Gradient) -> list[Tensor]:
        block = ODEBlock(Field(nn.BatchNorm1d(8), nn.Dropout(0.5)), RK4, gradient)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            gradients(block)
        return [*(p.grad for p in block.parameters()), *block.buffers()]

    for a, b in zip(found(recompute(3)), found(BACKPROP), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    "norm", [parametrizations.weight_norm, parametrizations.spectral_norm], ids=lambda f: f.__name__
)
def test_segments_share_the_weights_of_their_solve(norm) -> None:
    def found(gradient: Gradient) -> tuple[dict[str, Tensor], list[Tensor]]:
        field = Field()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            norm(field.first)
        block = ODEBlock(field.double(), RK4, gradient)
        taken = gradients(block)
        assert all(part.training for part in block.modules())
        return taken, list(block.buffers())

    torch.testing.assert_close(found(recompute(3)), found(BACKPROP), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 0.2, 0.9, 1.0)])
@pytest.mark.parametrize("segments", SEGMENTS)
def test_each_pass_evaluates_steps_times_stages(segments, times: tuple[float, ...]) -> None:
    block = ODEBlock(Field(), RK4, recompute(segments))
    with one_pass(block) as forward:
        states = block.trajectory(start(), times)
    with one_pass(block) as backward:
        states.square().sum().backward()
    assert forward.evaluations == backward.evaluations == [5 * 4 * (len(times) - 1)]


@pytest.mark.parametrize(
    ("segments", "sizes"),
    [(1, [9]), (2, [4, 5]), (4, [2, 2, 2, 3]), (9, [1] * 9), (50, [1] * 9), ("auto", [3, 3, 3])],
)
def test_segments_have_as_many_steps_each_as_can_be(segments, sizes: list[int]) -> None:
    grids = [[0.0, 1.0, 2.0], [2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [7.0, 8.0, 9.0]]
    cut = list(_cut(grids, segments))
    assert [sum(len(grid) - 1 for grid, _ in segment) for segment in cut] == sizes
    ends = [grid[-1] for segment in cut for grid, is_end in segment if is_end]
    assert ends == [2.0, 7.0, 9.0]
    steps = [t for segment in cut for grid, _ in segment for t in grid[1:]]
    assert steps == [float(t) for t in range(1, 10)]


def test_a_trajectory_of_one_time_is_its_start() -> None:
    y0 = start()
    (state,) = ODEBlock(Field(), RK4, recompute("auto")).states(y0, (0.0,))
    assert torch.equal(state, y0)


@pytest.mark.parametrize("method", ["dopri5", "implicit_adams"])
def test_segments_are_refused_where_steps_are_not_known(method: str) -> None:
    solver = {"method": method} | ({} if method == "dopri5" else {"steps": 8})
    with pytest.raises(ValueError, match=f"`segments` need fixed steps, but `{method}`"):
        TrialSpec(
            data="spheres", model="plainode", solver=solver,
            gradient={"name": "recompute", "segments": 4},
        )  # fmt: skip
    with pytest.raises(InputError, match="`segments` need fixed steps"):
        ODEBlock(Field(), Solver(**solver), recompute(4))(start())


def test_one_segment_has_the_name_of_what_was_done_before() -> None:
    assert recompute(1) == Gradient(name="recompute")
    with pytest.raises(ValueError, match="`segments` is a setting of `recompute`"):
        Gradient(name="adjoint", segments=2)


# ---------------------------------------------------------------------- backward passes again


@pytest.mark.parametrize("solver", [RK4, DOPRI5], ids=["rk4", "dopri5"])
@pytest.mark.parametrize("segments", [1, 3])
def test_a_second_backward_pass_finds_the_same(solver: Solver, segments: int) -> None:
    segments = segments if solver == RK4 else 1
    block = ODEBlock(Field(nn.BatchNorm1d(8)), solver, recompute(segments))
    loss = block(start()).square().sum()
    parameters = list(block.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    before = [buffer.clone() for buffer in block.buffers()]
    second = torch.autograd.grad(loss, parameters)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, block.buffers(), strict=True))


class Hamiltonian(nn.Module):
    """(dH/dp, -dH/dq), of a learned energy H of position q and momentum p."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.energy = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()

    def forward(self, _t: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            y = y if y.requires_grad else y.detach().requires_grad_()
            (by,) = torch.autograd.grad(self.energy(y).sum(), y, create_graph=True)
        return torch.stack((by[:, 1], -by[:, 0]), dim=1)


@pytest.mark.parametrize("name", ["recompute", "adjoint"])
@pytest.mark.parametrize("solver", [Solver(method="rk4", steps=10), Solver(tol=1e-7)])
def test_a_field_may_take_gradients_itself(name: str, solver: Solver) -> None:
    def found(gradient: Gradient) -> list[Tensor]:
        block = ODEBlock(Hamiltonian(), solver, gradient)
        y0 = start()[:, :2].detach().requires_grad_()
        block(y0).square().sum().backward()
        return [y0.grad, *(p.grad for p in block.parameters())][:-1]  # H's constant does nothing

    tolerance = 1e-12 if name == "recompute" else 1e-5
    for a, b in zip(found(Gradient(name=name)), found(BACKPROP), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


# ------------------------------------------------------------------------------------ memory


class Wide(nn.Module):
    """A field which keeps some 40 states an evaluation, as convolutions of many channels do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((20, 1), 0.01))

    def forward(self, _t: Tensor, y: Tensor) -> Tensor:
        return (y * self.weight).tanh().sin().sum(0)


def peak_states(gradient: Gradient, steps: int) -> float:
    """The memory of a forward and backward pass, in states."""
    block = ODEBlock(Wide(), Solver(method="euler", steps=steps), gradient)
    y0 = torch.ones(1000)
    return peak_bytes(lambda: block(y0).sum().backward()) / (4 * y0.numel())


def test_the_memory_of_backprop_grows_with_the_steps_and_of_segments_with_their_root() -> None:
    backprop = {n: peak_states(BACKPROP, n) for n in (64, 256)}
    assert backprop[256] / backprop[64] == pytest.approx(4, rel=0.05)
    auto = {n: peak_states(recompute("auto"), n) for n in (64, 256, 1024)}
    for fewer, more in ((64, 256), (256, 1024)):
        assert auto[more] / auto[fewer] == pytest.approx(2, rel=0.2)
    assert auto[256] < backprop[256] / 10


def test_one_segment_saves_nothing_in_a_network_of_one_block() -> None:
    assert peak_states(recompute(1), 64) == pytest.approx(peak_states(BACKPROP, 64), rel=0.05)


def test_the_adjoint_s_memory_does_not_grow() -> None:
    assert peak_states(Gradient(name="adjoint"), 256) == peak_states(Gradient(name="adjoint"), 16)


def test_exact_falls_back_to_segments() -> None:
    block = ODEBlock(Wide(), Solver(method="euler", steps=256), Gradient(name="exact"))
    block.memory.bytes = 1000
    y0 = torch.ones(1000)
    peak = peak_bytes(lambda: block(y0).sum().backward()) / (4 * y0.numel())
    assert block.exact_forms == {block.solver: "recompute"}
    assert peak < peak_states(BACKPROP, 256) / 10
