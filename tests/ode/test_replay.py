"""Gradients by steps that are taken again: `aca`, `symplectic`, `reversible`."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from nodebench.errors import FieldError
from nodebench.ode.block import ODEBlock
from nodebench.ode.field import Counted, OverStates, ignored
from nodebench.ode.fixed import integrate
from nodebench.ode.gradients.random_state import is_random
from nodebench.ode.gradients.recorded_steps import traced
from nodebench.ode.tableau import EMBEDDED
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from tests.support.memory_use import peak_bytes
from tests.support.tiny_fields import FIXED, Field, gradients, start, taken

TIMES = [(0.0, 1.0), (0.0, 0.3, 0.5, 1.0), (1.0, 0.5, 0.0)]
REVERSIBLE = [
    Solver(method="alf", steps=5),
    Solver(method="alf", steps=5, damping=0.9),
    Solver(method="reversible_heun", steps=5),
    *(Solver(method=method, steps=5, coupling=0.95) for method in FIXED),
]
RUNGE_KUTTA = [Solver(method=method, steps=5) for method in FIXED]
RAGGED = Solver(method="rk4", step_size=0.3)


def name(value: object) -> str:
    if isinstance(value, Solver):
        extra = [str(x) for x in (value.damping, value.coupling) if x is not None]
        return "-".join([value.method, *extra])
    return value.__name__ if callable(value) else str(value)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3, dtype=torch.float64).roll(1, 0) - 0.5)

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        return y @ self.weight


class Conv(nn.Module):
    """A convolution of t and y over rows of three."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv1d(2, 1, 3, padding=1, dtype=torch.float64)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        channels = torch.stack((y, t.expand_as(y)), dim=1)
        return torch.tanh(self.conv(channels)).squeeze(1)


@pytest.mark.parametrize("field", [Linear, Field, Conv], ids=name)
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize(
    ("gradient", "solver"),
    [
        *(("aca", solver) for solver in (*RUNGE_KUTTA, *REVERSIBLE, RAGGED)),
        *(("symplectic", solver) for solver in (*RUNGE_KUTTA, RAGGED)),
        *(("reversible", solver) for solver in REVERSIBLE),
        *(("recompute", solver) for solver in (*RUNGE_KUTTA, RAGGED)),
    ],
    ids=name,
)
def test_a_gradient_by_steps_taken_again_is_backprops(gradient, solver, times, field) -> None:
    segments = "auto" if gradient == "recompute" else None
    found = taken(solver, Gradient(name=gradient, segments=segments), field, times)
    expected = taken(solver, Gradient(name="backprop"), field, times)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def along_the_accepted_steps(solver: Solver, times: tuple[float, ...]) -> dict[str, Tensor]:
    """Backprop through the steps that an adaptive solver accepted, without its step control."""
    block = ODEBlock(Field(), solver, Gradient())
    trace = traced(Counted(block.f, ignored), start().detach(), times, solver)
    ends = zip(trace.intervals, times[1:], strict=True)
    grids = [[*(step.t for step in steps), end] for steps, end in ends]

    def trajectory(y0: Tensor, _times: object) -> Tensor:
        field = OverStates(Counted(block.f, ignored))
        return torch.stack([y for (y,) in integrate(field, (y0,), grids, trace.stepper)])

    block.trajectory = trajectory
    return gradients(block, times)


@pytest.mark.parametrize("gradient", ["aca", "symplectic"])
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("method", EMBEDDED)
def test_of_an_adaptive_solver_it_is_backprop_along_the_accepted_steps(
    method, times, gradient
) -> None:
    solver = Solver(method=method, tol=1e-4)
    torch.testing.assert_close(
        taken(solver, Gradient(name=gradient), times=times),
        along_the_accepted_steps(solver, times),
        rtol=1e-10,
        atol=1e-12,
    )


def test_its_accepted_steps_are_torchdiffeqs_solve() -> None:
    solver = Solver(method="dopri5", tol=1e-6)
    found = along_the_accepted_steps(solver, (0.0, 0.4, 1.0))["trajectory"]
    plain = taken(solver, Gradient(), times=(0.0, 0.4, 1.0))["trajectory"]
    torch.testing.assert_close(found, plain, rtol=1e-13, atol=1e-13)


# ------------------------------------------------------------- what f changes in itself, and draws


def batch_normalised() -> nn.Module:
    return Field(nn.BatchNorm1d(8)).train()


def spectrally_normalised() -> nn.Module:
    field = Field()
    parametrizations.spectral_norm(field.first)
    return field.train()


WAYS = [
    ("aca", Solver(method="rk4", steps=4)),
    ("aca", Solver(method="alf", steps=4)),
    ("symplectic", Solver(method="rk4", steps=4)),
    ("reversible", Solver(method="alf", steps=4)),
    ("reversible", Solver(method="reversible_heun", steps=4)),
    ("reversible", Solver(method="midpoint", steps=4, coupling=0.9)),
    ("interpolated", Solver(method="rk4", steps=4)),
]


@pytest.mark.parametrize("field", [batch_normalised, spectrally_normalised], ids=name)
@pytest.mark.parametrize(("gradient", "solver"), WAYS, ids=name)
def test_buffers_move_on_once(gradient, solver, field) -> None:
    def buffers(name: str) -> list[Tensor]:
        torch.manual_seed(0)
        block = ODEBlock(field(), solver, Gradient(name=name))
        gradients(block)
        return list(block.buffers())

    torch.testing.assert_close(buffers(gradient), buffers("backprop"), rtol=0, atol=0)


@pytest.mark.parametrize("field", [batch_normalised, spectrally_normalised], ids=name)
@pytest.mark.parametrize(("gradient", "solver"), WAYS[:-1], ids=name)
def test_norms_inside_the_field_do_not_change_the_gradient(gradient, solver, field) -> None:
    def found(name: str) -> dict[str, Tensor]:
        torch.manual_seed(0)
        return taken(solver, Gradient(name=name), field)

    torch.testing.assert_close(found(gradient), found("backprop"), rtol=1e-10, atol=1e-12)


class Drawing(nn.Module):
    """A layer that draws its dropout in no module of its own."""

    def forward(self, y: Tensor) -> Tensor:
        return F.dropout(y, 0.5, self.training) + 0.1 * torch.rand(())


class Attention(nn.Module):
    """Attention whose weights are dropped, between the samples of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 1, dropout=0.5, dtype=torch.float64)

    def forward(self, y: Tensor) -> Tensor:
        return self.attention(y, y, y)[0]


RANDOM = {
    "dropout": lambda: nn.Dropout(0.5),
    "functional": Drawing,
    "attention": Attention,
    "slopes": nn.RReLU,
}


@pytest.mark.parametrize("layer", RANDOM)
@pytest.mark.parametrize(
    ("gradient", "solver"),
    [*WAYS[:3], ("aca", Solver(method="reversible_heun", steps=4))],
    ids=name,
)
def test_a_step_taken_again_draws_what_it_drew_before(gradient, solver, layer) -> None:
    def found(name: str) -> tuple[dict[str, Tensor], Tensor]:
        torch.manual_seed(3)
        return taken(solver, Gradient(name=name), lambda: Field(RANDOM[layer]())), torch.rand(2)

    torch.testing.assert_close(found(gradient), found("backprop"), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layer", RANDOM)
@pytest.mark.parametrize("gradient", ["reversible", "adjoint", "interpolated"])
def test_a_random_field_cannot_be_solved_backwards(gradient: str, layer: str) -> None:
    solver = Solver(method="alf" if gradient == "reversible" else "rk4", steps=4)
    with pytest.raises(FieldError, match=f"`{gradient}` solves backwards, and f draws other"):
        taken(solver, Gradient(name=gradient), lambda: Field(RANDOM[layer]()))


def test_a_field_in_evaluation_mode_drops_nothing_and_is_solved_backwards() -> None:
    block = ODEBlock(
        Field(nn.Dropout(0.5)), Solver(method="rk4", steps=2), Gradient(name="adjoint")
    )
    block.eval()
    block(start()).sum().backward()
    block.train()
    dropout = block.f.between[0].eval()
    block(start())
    dropout.train()
    with pytest.raises(FieldError):
        block(start())


def test_whether_a_field_is_random_costs_one_evaluation_without_side_effects() -> None:
    norm = nn.BatchNorm1d(8, dtype=torch.float64)
    field = Field(norm)
    calls: list[None] = []
    field.register_forward_hook(lambda *_: calls.append(None))
    drawn = torch.get_rng_state()
    assert not is_random(field, 0.0, start())
    assert not is_random(field, 0.0, start())
    assert len(calls) == 1
    assert norm.num_batches_tracked == 0
    assert torch.equal(torch.get_rng_state(), drawn)


def test_a_field_without_gradient_gives_the_identitys() -> None:
    for gradient in ("aca", "symplectic", "interpolated"):
        block = ODEBlock(Constant(), Solver(method="rk4", steps=3), Gradient(name=gradient))
        y0 = start()
        block(y0).sum().backward()
        torch.testing.assert_close(y0.grad, torch.ones_like(y0))


class Constant(nn.Module):
    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        return torch.ones_like(y)


# ------------------------------------------------------------------------- memory and evaluations


@pytest.mark.parametrize(
    ("gradient", "solver", "kept"),
    [
        ("aca", "rk4", 192),
        ("symplectic", "rk4", 192),
        ("interpolated", "rk4", 0),
        ("reversible", "alf", 0),
    ],
)
def test_what_a_gradient_keeps_of_further_steps(gradient, solver, kept) -> None:
    """In states: of 256 steps, as many more than of 64 as there are steps more, or none."""

    def peak(steps: int) -> float:
        way = Gradient(name=gradient)
        block = ODEBlock(Linear(), Solver(method=solver, steps=steps), way)
        y0 = torch.ones(1000, 3, dtype=torch.float64)
        return peak_bytes(lambda: block(y0).sum().backward()) / (8 * y0.numel())

    assert peak(256) - peak(64) == pytest.approx(kept, abs=1)


@pytest.mark.parametrize(
    ("gradient", "solver", "forward", "backward"),
    [
        ("aca", Solver(method="rk4", steps=6), 24, 24),
        ("symplectic", Solver(method="rk4", steps=6), 24, 18 + 24),
        ("symplectic", Solver(method="euler", steps=6), 6, 6),
        ("aca", Solver(method="alf", steps=6), 7, 7),
        ("reversible", Solver(method="alf", steps=6), 7, 6 + 7),
        ("reversible", Solver(method="reversible_heun", steps=6), 7, 6 + 7),
        ("reversible", Solver(method="rk4", steps=6, coupling=0.9), 48, 96),
    ],
    ids=name,
)
def test_evaluations_forward_and_backward(gradient, solver, forward, backward) -> None:
    block = ODEBlock(Field(), solver, Gradient(name=gradient))
    y = block(start())
    assert block.evaluations == forward
    y.sum().backward()
    assert block.evaluations == forward + backward


def test_a_solve_is_freed_without_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        for gradient, solver in WAYS:
            block = ODEBlock(Field(), solver, Gradient(name=gradient))
            states = block.states(start(), (0.0, 0.5, 1.0))
            alive = [weakref.ref(state) for state in states[1:]]
            del states
            assert [ref() for ref in alive] == [None, None], gradient
    finally:
        gc.enable()
