"""Tests of models/layers/batch_norm.py, by right-hand sides in evaluation mode."""

import pytest
import torch
from torch import Tensor, nn

from nodebench.models.chains.chain import Chain
from nodebench.models.dynamics import Dynamics, _chained
from nodebench.ode.block import ODEBlock, batch_statistics
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import DYNAMICS
from tests.support.image_fields import are_near, field, images


def trained(dynamics: str, dtype: torch.dtype) -> Dynamics:
    """With statistics of its own, in evaluation mode."""
    f = field(dynamics, "bn").to(dtype)
    for norm in f.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.3, 2.0)
    return f.eval()


def kinds(f: Dynamics, y: Tensor) -> set[type]:
    return {type(each) for each in _chained(f.layers, y)}


def values(f: Dynamics, y: Tensor) -> list[Tensor]:
    out = f(0.7, y)
    by_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out)
    with torch.no_grad():
        without_gradient = f(0.7, y)
    return [out, without_gradient, *torch.autograd.grad(out, [y, *f.parameters()], by_out)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_in_evaluation_it_is_a_part_of_chains_with_the_bits_of_torchs(dynamics, dtype, monkeypatch):
    f, y = trained(dynamics, dtype), images(9).detach().to(dtype).requires_grad_()
    assert kinds(f, y) == {Chain}
    found = values(f, y)
    monkeypatch.setattr("nodebench.models.dynamics.can_scale", lambda *_: False)
    assert nn.BatchNorm2d in kinds(f, y)
    expected = values(f, y)
    assert all(map(torch.equal, found[:2], expected[:2]))
    for ours, torchs in zip(found[2:], expected[2:], strict=True):
        torch.testing.assert_close(ours, torchs)


def test_a_solve_in_evaluation_has_the_bits_of_steps_by_torch(monkeypatch):
    y = images(9)
    of = ODEBlock(
        trained("postnorm", torch.float64), Solver(method="rk4", steps=3), Gradient(name="backprop")
    )
    with torch.no_grad():
        whole = of(y)
        monkeypatch.setattr(Dynamics, "whole_solve", lambda *_: None)
        assert torch.equal(whole, of(y))


def test_statistics_of_batches_are_torchs():
    f, y = trained("preact", torch.float64), images()
    of = ODEBlock(f, Solver(method="euler", steps=1), Gradient(name="backprop"))
    with batch_statistics(of):
        assert nn.BatchNorm2d in kinds(f, y)
    assert nn.BatchNorm2d in kinds(f.train(), y)
    assert kinds(f.eval(), y) == {Chain}


def test_a_gradient_can_be_differentiated():
    f = trained("prenorm", torch.float64)

    def curvature(y: Tensor) -> list[Tensor]:
        (by_y,) = torch.autograd.grad(f(0.3, y).pow(3).sum(), y, create_graph=True)
        return list(torch.autograd.grad(by_y.pow(2).sum(), [y, *f.parameters()]))

    are_near(curvature(images()), curvature(images().detach().contiguous().requires_grad_()))
