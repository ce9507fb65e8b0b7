"""Tests of ode/dense/, against automatic differentiation of the same field."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from nodebench.errors import EvaluationLimit
from nodebench.models.dynamics import Autonomous, autonomous
from nodebench.models.layers.conv_as_matrix import folded
from nodebench.ode.block import ODEBlock
from nodebench.ode.dense import solve
from nodebench.ode.dense.activation_kernels import BLOCK, activate
from nodebench.ode.dense.field import DenseField, is_dense
from nodebench.ode.dense.parts import COMPILED_ACTIVATIONS
from nodebench.ode.dense.solve import PIECE_BYTES
from nodebench.ode.tableau import TABLEAUS
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver

BACKPROP = Gradient(name="backprop")
TIMES = (0.0, 0.4, 1.0)


def layers(activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(3, 8), activation(), nn.Linear(8, 5), activation(), nn.Linear(5, 3)
        ).double()


def start() -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return torch.randn(7, 3, dtype=torch.float64)


def taken(field: nn.Module, solver: Solver) -> list[Tensor]:
    """The states at `TIMES`, and the gradients of a loss of all of them."""
    block, y0 = ODEBlock(field, solver, BACKPROP), start().requires_grad_()
    states = block.trajectory(y0, TIMES)
    states.square().sum().backward()
    count = torch.tensor(block.evaluations)
    return [states, count, y0.grad, *(p.grad for p in field.parameters())]


@pytest.mark.parametrize("method", TABLEAUS)
@pytest.mark.parametrize("activation", COMPILED_ACTIVATIONS, ids=lambda kind: kind.__name__)
def test_states_evaluations_and_gradients_are_those_of_backprop(activation, method):
    solver = Solver(method=method, steps=3)
    found = taken(DenseField(layers(activation)), solver)
    expected = taken(Autonomous(layers(activation)), solver)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_unequal_steps_are_integrated_too():
    solver = Solver(method="rk4", step_size=0.17)
    found, expected = (taken(f(layers()), solver) for f in (DenseField, Autonomous))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def convolutions() -> nn.Sequential:
    """Of a signal of three positions."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return nn.Sequential(
            nn.Conv1d(1, 4, 1), nn.Tanh(), nn.Conv1d(4, 1, 3, padding=1)
        ).double()  # fmt: skip


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_the_gradients_of_folded_convolutions_are_those_of_the_kernels(method):
    controls = {"steps": 3} if method == "rk4" else {"tol": 1e-3}
    solver = Solver(method=method, **controls)
    found, expected = (
        taken(f(folded(convolutions(), 3)), solver) for f in (DenseField, Autonomous)
    )
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("piece_bytes", [1, PIECE_BYTES])
@pytest.mark.parametrize(
    "made", [layers, lambda: layers(nn.SiLU), lambda: folded(convolutions(), 3)]
)
def test_several_models_at_once_have_the_gradients_of_each(made, piece_bytes, monkeypatch):
    monkeypatch.setattr(solve, "PIECE_BYTES", piece_bytes)
    rk4 = Solver(method="rk4", steps=2)
    models = [ODEBlock(DenseField(made()), rk4, BACKPROP) for _ in range(2)]
    with torch.no_grad():
        for p in models[1].parameters():
            p.mul_(0.7)
    y0 = torch.stack([start(), start() + 1])
    expected = [
        torch.autograd.grad(model(y).square().sum(), list(model.parameters()))
        for model, y in zip(models, y0, strict=True)
    ]
    stacked = {
        name: torch.stack([model.get_parameter(name).detach() for model in models])
        for name, _ in models[0].named_parameters()
    }
    leaves = {name: value.requires_grad_() for name, value in stacked.items()}
    out = vmap(lambda p, y: functional_call(models[0], p, (y,)))(leaves, y0)
    found = torch.autograd.grad(out.square().sum(), list(leaves.values()))
    torch.testing.assert_close(
        found, tuple(map(torch.stack, zip(*expected, strict=True))), rtol=1e-12, atol=1e-12
    )


def test_the_limit_of_evaluations_holds():
    block = ODEBlock(DenseField(layers()), Solver(method="rk4", steps=2), BACKPROP)
    block.max_evaluations = 7
    with pytest.raises(EvaluationLimit):
        block(start())


@pytest.mark.parametrize(
    ("g", "expected"),
    [
        (layers(), True),
        (nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3)), False),
        (nn.Sequential(nn.Linear(3, 3), nn.GELU(), nn.Linear(3, 3)), False),
        (nn.Sequential(nn.Linear(3, 3), nn.LeakyReLU(0.2), nn.Linear(3, 3)), False),
        (nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 3)), True),
        (nn.Sequential(nn.Linear(3, 3), nn.Softplus(beta=1), nn.Linear(3, 3)), True),
        (nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh()), False),
        (nn.Sequential(nn.Conv1d(3, 3, 1), nn.Tanh(), nn.Conv1d(3, 3, 1)), False),
        (nn.Sequential(nn.Linear(3, 3)), False),
        (
            nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)),
            False,
        ),
    ],
)
def test_only_fields_that_are_known_by_heart_are_taken(g, expected):
    assert is_dense(g) is expected
    assert isinstance(autonomous(g), DenseField) is expected


@pytest.mark.parametrize("activation", COMPILED_ACTIVATIONS, ids=lambda kind: kind.__name__)
def test_float32_is_float64_to_rounding(activation):
    solver = Solver(method="euler", steps=16)
    found = []
    for dtype in (torch.float32, torch.float64):
        block = ODEBlock(DenseField(layers(activation).to(dtype)), solver, BACKPROP)
        y0 = start().to(dtype).requires_grad_()
        states = block.trajectory(y0, TIMES)
        states.square().sum().backward()
        found.append([states, y0.grad, *(p.grad for p in block.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("kind", COMPILED_ACTIVATIONS, ids=lambda kind: kind.__name__)
def test_a_compiled_activation_is_torchs_to_three_units_in_the_last_place(kind):
    """Over the whole range of float32's results, and where they are infinite or not a number."""
    special = [0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-30, -1e-30, 200.0, -200.0]
    rest = torch.linspace(-30, 30, 16 * BLOCK - len(special)).tolist()
    x = torch.tensor(special + rest).reshape(16, 1, BLOCK)
    out = np.zeros((32, 1, BLOCK), np.float32)
    activate(out, 0, x.numpy(), 0, 16, COMPILED_ACTIVATIONS.index(kind), 16)
    out = out[:16]
    expected = kind()(x.double()).numpy()
    is_finite = np.isfinite(expected)
    assert np.array_equal(out[~is_finite], expected[~is_finite], equal_nan=True)
    units = np.spacing(np.abs(expected[is_finite]).astype(np.float32))
    assert (np.abs(out[is_finite] - expected[is_finite]) <= 3 * np.maximum(units, 1e-38)).all()


def test_several_threads_give_the_bits_of_one():
    def gradients(threads: int) -> list[Tensor]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            block = ODEBlock(DenseField(layers()), Solver(method="rk4", steps=3), BACKPROP)
            y0 = torch.cat([start()] * 40).requires_grad_()
            block(y0).square().sum().backward()
        finally:
            torch.set_num_threads(before)
        return [y0.grad, *(p.grad for p in block.parameters())]

    one, three = gradients(1), gradients(3)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


def test_the_state_is_all_that_a_batch_shares_with_its_padding():
    """A batch of 7 fills a part of one block, and one of 64 all of it."""
    block = ODEBlock(DenseField(layers()), Solver(method="rk4", steps=2), BACKPROP)
    y0 = torch.cat([start()] * 10)[:BLOCK]
    with torch.no_grad():
        assert torch.equal(block(y0)[:7], block(y0[:7]))
