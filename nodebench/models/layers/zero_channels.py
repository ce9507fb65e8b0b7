"""More dimensions for an ODE, which begin at zero."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ZeroChannels(nn.Module):
    """Appends components of zeros to vectors, or channels of zeros to images.

    An ODE's trajectories cannot cross, and in more dimensions they need not. Source: Dupont et
    al. 2019.
    """

    def __init__(self, count: int):
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, …] -> [batch, channels + count, …]."""
        return F.pad(x, (0, 0) * (x.dim() - 2) + (0, self.count)) if self.count else x
