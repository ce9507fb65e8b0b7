"""What a regularizer evaluates of f: its derivatives are right, and it leaves no traces."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

from nodebench.models.chains.images import are_compiled
from nodebench.models.dynamics import Dynamics
from nodebench.models.layers.factory import LayerFactory
from nodebench.ode.block import ODEBlock
from nodebench.ode.regularizers.forward_mode import directional
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from tests.support.regularized import ALL_TERMS, loss_of, penalty
from tests.support.tiny_fields import RK4, Field, start


class Normed(nn.Module):
    """f(t, y) of a user's own, with a norm of torch's that torch differentiates wrongly."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.first, self.norm = nn.Linear(3, 3).double(), norm.double()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.first(y)) + t)


class Opaque(Dynamics):
    """The same right-hand side, of which no rule is known."""

    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        return super().forward(t, y)


@pytest.mark.parametrize(
    "make",
    [
        Field,
        lambda: Normed(nn.BatchNorm1d(3)),
        lambda: Normed(nn.LayerNorm(3)),
        lambda: Normed(nn.InstanceNorm1d(5)),
    ],
    ids=["tanh", "batch norm", "layer norm", "instance norm"],
)
def test_the_gradient_of_a_regularized_loss_is_that_of_finite_differences(
    make: Callable[[], nn.Module],
) -> None:
    torch.manual_seed(4)
    block, y0 = ODEBlock(make(), RK4, Gradient()), start(5).detach()
    loss_of(block, y0).backward()
    weight = block.f.first.weight
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)).double()
    with torch.no_grad():
        sides = []
        for step in (1e-5, -1e-5):
            weight.add_(step * direction)
            sides.append(loss_of(block, y0))
            weight.sub_(step * direction)
    slope = (sides[0] - sides[1]) / 2e-5
    torch.testing.assert_close((weight.grad * direction).sum(), slope, rtol=1e-8, atol=0)


@pytest.mark.parametrize("norm", ["bn", "in", "ln"])
def test_terms_are_the_same_with_and_without_rules_for_the_layers(norm: str) -> None:
    found = []
    for kind in (Dynamics, Opaque):
        torch.manual_seed(4)
        f = kind("prenorm", 4, LayerFactory(norm, "softplus")).double()
        block = ODEBlock(f, Solver(method="rk4", steps=2), Gradient())
        y0 = torch.randn(3, 4, 3, 3, dtype=torch.float64)
        (terms, y), seen = penalty(block, y0, ALL_TERMS), block.f.layers[0]
        terms.added_to(y.sum()).backward()
        gradient = torch.cat([p.grad.flatten() for p in block.parameters()])
        kept = [each.clone() for each in seen.buffers()]
        found.append((list(terms.terms.values()), gradient, kept, terms.evaluations))
    torch.testing.assert_close(*(each[:2] for each in found), rtol=1e-10, atol=1e-12)
    assert all(map(torch.equal, found[0][2], found[1][2]))
    assert found[0][3] == found[1][3] == 8 * 3


class OwnNorm(nn.BatchNorm1d):
    """A batch norm with code of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2.0 * super().forward(x)


def test_norms_of_the_user_s_own_learn_from_the_solve_alone() -> None:
    found = []
    for settings in ({}, ALL_TERMS):
        torch.manual_seed(4)
        block = ODEBlock(Normed(OwnNorm(3)), RK4, Gradient())
        penalty(block, start().detach(), settings)
        found.append(list(block.f.norm.buffers()))
    assert all(map(torch.equal, *found))
    assert found[0][2] > 0


@pytest.mark.parametrize("settings", [{"kinetic": 0.3}, ALL_TERMS])
def test_layers_are_compiled_in_a_solve_with_terms(settings: dict[str, object]) -> None:
    states: list[bool] = []
    f = Dynamics("postnorm", 16, LayerFactory("gn")).to(memory_format=torch.channels_last)
    y0 = torch.randn(8, 16, 5, 5).to(memory_format=torch.channels_last)
    block = ODEBlock(f, Solver(method="euler", steps=2), Gradient())
    chains = Dynamics._chains

    def noted(self: Dynamics, y: Tensor) -> Iterable[nn.Module]:
        states.append(are_compiled(y))
        return chains(self, y)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dynamics, "_chains", noted)
        penalty(block, y0, settings)
    assert states
    assert all(states)


@pytest.mark.parametrize("norm", ["gn", "bn", "ln+wn", "sn"])
def test_norms_of_convolutions_learn_from_the_solve_alone(norm: str) -> None:
    def trained(settings: object) -> tuple[Tensor, list[Tensor], bool]:
        torch.manual_seed(0)
        f = Dynamics("postnorm", 4, LayerFactory(norm, "softplus", 2))
        block = ODEBlock(f, RK4, Gradient()).to(memory_format=torch.channels_last)
        y0 = torch.randn(3, 4, 5, 5).to(memory_format=torch.channels_last)
        found, y = penalty(block, y0, settings)
        found.added_to(y.sum()).backward()
        grads = [p.grad for p in block.parameters()]
        return y, list(block.buffers()), all(g is not None and g.isfinite().all() for g in grads)

    plain, regularized = trained({}), trained(ALL_TERMS)
    assert torch.equal(plain[0], regularized[0])
    for one, other in zip(plain[1], regularized[1], strict=True):
        assert torch.equal(one, other)
    assert plain[2] and regularized[2]


def test_dropout_inside_f_is_the_same_in_the_evaluations_for_terms() -> None:
    block = ODEBlock(Field(nn.Dropout(0.5)), Solver(method="euler", steps=1), Gradient())
    y0 = start(50).detach()
    torch.manual_seed(5)
    found, y = penalty(block, y0, {"taylor": {"order": 2, "weight": 1.0}})
    after = torch.rand(())
    torch.manual_seed(5)
    assert torch.equal(block(y0), y)
    assert torch.equal(torch.rand(()), after)  # the stream went on as without regularizers
    torch.manual_seed(5)
    dy = block.f(0.0, y0)

    def along(s: Tensor) -> Tensor:
        torch.manual_seed(5)
        return block.f(s, y0 + s * dy)

    expected = directional(
        along, (torch.zeros((), dtype=torch.float64),), (torch.ones(()).double(),)
    )
    torch.testing.assert_close(
        found.terms["taylor"], expected.square().sum(1).mean(), rtol=1e-12, atol=0
    )
