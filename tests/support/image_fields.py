"""Right-hand sides of images, all of whose layers are compiled, and states for them."""

import torch
from torch import Tensor, nn

from nodebench.models.dynamics import Dynamics
from nodebench.models.layers.factory import LayerFactory


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
