"""Right-hand sides of images, all of whose layers are compiled, and states for them."""

import torch
from torch import Tensor, nn

from nodebench.models.dynamics import Dynamics
from nodebench.models.layers.factory import LayerFactory
from nodebench.ode.block import ODEBlock
from nodebench.ode.tableau import EMBEDDED
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver

TIMES = (0.0, 0.4, 1.0, 1.5)


def field(dynamics: str = "postnorm", norm: str | None = "ln", act: str = "relu") -> Dynamics:
    torch.manual_seed(0)
    f = (
        Dynamics(dynamics, 16, LayerFactory(norm, act))
        .double()
        .to(memory_format=torch.channels_last)
    )
    for parameter in f.parameters():
        nn.init.normal_(parameter, std=0.3)
    return f


def images(batch: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(batch, 16, 4, 3, generator=generator, dtype=torch.float64)
    return y.to(memory_format=torch.channels_last).requires_grad_()


def are_near(found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, torchs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-10, atol=1e-10)


def block(f: Dynamics, method: str = "rk4", steps: int = 3) -> ODEBlock:
    size = {"tol": 1e-3} if method in EMBEDDED else {"steps": steps}
    return ODEBlock(f, Solver(method=method, **size), Gradient(name="backprop"))


def solved(of: ODEBlock, y: Tensor, weights: tuple[float, ...] = (1.0, 0.7, -2.0)) -> list[Tensor]:
    """The states at all times, and the gradients of a loss that weighs these."""
    _, *states = of.states(y, TIMES)
    generator = torch.Generator().manual_seed(2)
    by_states = [torch.randn(y.shape, generator=generator, dtype=y.dtype) for _ in states]
    terms = zip(weights, states, by_states, strict=True)
    loss = sum(weight * (state * by).sum() for weight, state, by in terms if weight)
    assert isinstance(loss, Tensor)
    return [*states, *torch.autograd.grad(loss, [y, *of.parameters()])]


def are_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    assert all(map(torch.equal, found, expected))
