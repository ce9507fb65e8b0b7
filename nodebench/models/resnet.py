"""Image networks whose feature stage is a chain of residual blocks, or of ODE blocks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from nodebench.data.dataset import Data
from nodebench.model_settings import ConvNetwork, OdeNet, ResNet
from nodebench.models.dynamics import DownsamplingBlock, Dynamics, ResidualBlock
from nodebench.models.norm import NORMS
from nodebench.ode.block import ODEBlock
from nodebench.spec import TrialSpec


class ConvNet(nn.Module):
    """Stem, feature stage, head: `resnet` and `odenet`, which differ in the feature stage alone.

    Shapes: [batch, channels, height, width] -> logits [batch, classes]. The stem reduces 28 x 28
    to 6 x 6. Source: Chen et al. 2018 and its re-implementations (S1, S3 of `docs/studies.md`).
    """

    def __init__(self, spec: TrialSpec, data: Data):
        super().__init__()
        settings = spec.model
        assert isinstance(settings, ResNet | OdeNet)
        channels = settings.width + settings.augment_dim
        self.augment_dim = settings.augment_dim
        self.stem = _stem(settings, data.input_shape[0])
        self.feature = nn.Sequential(*(_block(spec, channels) for _ in range(settings.blocks)))
        self.head = nn.Sequential(
            NORMS[settings.norm.stem or "nf"](channels),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, data.classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem(x)
        if self.augment_dim:
            # Dupont et al. 2019: an ODE's trajectories cannot cross, and in more dimensions
            # they need not.
            x = F.pad(x, (0, 0, 0, 0, 0, self.augment_dim))
        out: Tensor = self.head(self.feature(x))
        return out


def _stem(settings: ConvNetwork, channels: int) -> nn.Sequential:
    width, norms = settings.width, settings.norm
    first = nn.Conv2d(channels, width, 3)
    if settings.stem == "res":
        residual = norms.residual or "nf"
        return nn.Sequential(first, *(DownsamplingBlock(width, residual) for _ in range(2)))
    stem = norms.stem or "nf"
    return nn.Sequential(
        first,
        NORMS[stem](width),
        nn.ReLU(),
        nn.Conv2d(width, width, 4, stride=2, padding=1),
        NORMS[stem](width),
        nn.ReLU(),
        nn.Conv2d(width, width, 4, stride=2, padding=1),
    )


def _block(spec: TrialSpec, channels: int) -> nn.Module:
    settings = spec.model
    if isinstance(settings, OdeNet):
        assert spec.solver is not None
        assert spec.gradient is not None
        f = Dynamics(settings.dynamics, channels, settings.norm.ode or "nf")
        return ODEBlock(f, spec.solver, spec.gradient, settings.t1)
    assert isinstance(settings, ResNet)
    return ResidualBlock(Dynamics(settings.dynamics, channels, settings.norm.residual or "nf"))
