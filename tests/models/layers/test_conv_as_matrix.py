"""Tests of models/layers/conv_as_matrix.py."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from nodebench.models.layers.conv_as_matrix import folded


def field(channels: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(1, channels, 1), nn.ReLU(), nn.Conv1d(channels, channels, 3, padding=1),
        nn.ReLU(), nn.Conv1d(channels, 1, 1),
    ).double()  # fmt: skip


@pytest.mark.parametrize("length", [1, 2, 3, 10])
def test_a_folded_field_is_the_same_function_with_the_same_gradients(length: int) -> None:
    plain = field()
    matrices = folded(copy.deepcopy(plain), length).double()
    y = torch.randn(7, length, dtype=torch.float64, requires_grad=True)
    y_plain = y.detach().clone().requires_grad_()
    found, expected = matrices(y), plain(y_plain.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(y.grad, y_plain.grad)
    for own, original in zip(matrices.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, original.grad)


def test_the_kernels_stay_the_parameters() -> None:
    plain = field()
    assert list(map(id, folded(plain, 2).parameters())) == list(map(id, plain.parameters()))


def test_the_matrix_is_made_once_in_a_solve() -> None:
    matrices = folded(field(), 2).double()
    calls = []
    middle = matrices[2].parametrizations.weight[0]
    middle.register_forward_hook(lambda *_: calls.append(1))
    with parametrize.cached():
        for _ in range(3):
            matrices(torch.zeros(1, 2, dtype=torch.float64))
    assert len(calls) == 1


@pytest.mark.parametrize("length", [1, 2, 10])
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_what_compiled_solves_write_and_pull_is_what_autograd_makes(length, name) -> None:
    """Of two seeds."""
    make = folded(field(), length)[2].parametrizations[name][0]
    original = field()[2].get_parameter(name).detach()
    parameters = torch.stack([original, 0.7 * original]).requires_grad_()
    expected = torch.stack([make(parameter) for parameter in parameters])
    made = torch.zeros_like(expected)
    make.write(parameters.detach().numpy(), made.numpy())
    assert torch.equal(made, expected)
    by_made = torch.randn_like(expected)
    (by_parameters,) = torch.autograd.grad(expected, parameters, by_made)
    torch.testing.assert_close(torch.from_numpy(make.pull(by_made.numpy())), by_parameters)
