"""Tests of the forms that are chosen for speed: they change nothing but rounding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nodebench.models.device import to_device
from nodebench.models.dynamics import Dynamics, TimeConv
from nodebench.models.layers.factory import LayerFactory
from nodebench.ode.block import ODEBlock
from nodebench.ode.weight_cache import once_per_solve, weights_made_once
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver


class Network(nn.Module):
    def __init__(self, gradient: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        solver = Solver(method="rk4", steps=2)
        f = Dynamics("postnorm", 6, LayerFactory("gn"))
        self.block = ODEBlock(f, solver, Gradient(name=gradient))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(self.stem(x))


@pytest.mark.parametrize("gradient", ["backprop", "recompute", "adjoint"])
def test_a_placed_network_is_the_same_function_with_the_same_gradient(gradient):
    plain, fast = (
        Network(gradient).double(),
        to_device(Network(gradient).double(), torch.device("cpu")),
    )
    assert fast.stem.weight.is_contiguous(memory_format=torch.channels_last)
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    outputs = [model(x) for model in (plain, fast)]
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    for output in outputs:
        output.square().sum().backward()
    for own, other in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-10, atol=1e-12)


def test_states_keep_their_memory_format_through_a_solve_and_back():
    model = to_device(Network("backprop"), torch.device("cpu"))
    formats = []

    def note(tensor: torch.Tensor) -> None:
        formats.append(tensor.is_contiguous(memory_format=torch.channels_last))

    def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        note(output)
        output.register_hook(note)

    for layer in model.block.f.layers:
        layer.register_forward_hook(hook)
    model(torch.rand(3, 1, 8, 8)).square().sum().backward()
    assert len(formats) == 2 * 6 * 8  # six layers, eight evaluations, forward and backward
    assert all(formats)


@pytest.mark.parametrize("gradient", ["backprop", "recompute"])
def test_filters_are_split_once_a_solve_and_anew_in_the_next(gradient, monkeypatch):
    calls = []
    split = TimeConv._parts
    monkeypatch.setattr(TimeConv, "_parts", lambda self, y: (calls.append(1), split(self, y))[1])
    model, x = Network(gradient), torch.rand(3, 1, 8, 8)
    before = model(x)
    assert len(calls) == 2  # two convolutions
    with torch.no_grad():
        for p in model.block.parameters():
            p.add_(0.1)
    assert not torch.equal(model(x), before)
    assert len(calls) == 4


def test_what_is_made_in_a_solve_is_forgotten_after_it():
    module, made = nn.Identity(), []

    def make() -> int:
        made.append(1)
        return len(made)

    with weights_made_once():
        assert [once_per_solve(module, "x", make) for _ in range(3)] == [1, 1, 1]
        with weights_made_once():
            assert once_per_solve(module, "x", make) == 1
        assert once_per_solve(module, "x", make) == 1
    assert [once_per_solve(module, "x", make) for _ in range(2)] == [2, 3]
