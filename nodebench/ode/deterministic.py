"""Whether f is deterministic: adaptive methods take what is not for an error of their steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nodebench.errors import RandomField
from nodebench.ode.field import slope
from nodebench.ode.gradients.buffers import buffers_kept, settled_weights
from nodebench.ode.weight_cache import weights_made_once

SAME_VALUE = 1e-5
"""How much two values may differ, as a share of their size: GPUs add in any order."""

SAME_VALUE_SHORT = 1e-2
"""The same under autocast, with factors of 8 or 10 bits."""


def require_deterministic(f: nn.Module, t: float, y: Tensor) -> None:
    """Refuses an f that draws random numbers, told from two values at one point.

    Neither buffers nor the stream of random numbers are moved on, and nothing is counted.

    Raises:
        RandomField: if they differ.
    """
    devices = [y.device] if y.is_cuda else []
    with (
        torch.random.fork_rng(devices),
        buffers_kept(f),
        settled_weights(f),
        weights_made_once(),
    ):
        first, second = slope(f, t, y).detach(), slope(f, t, y).detach()
    if not is_same(first, second):
        raise RandomField(
            "f gives two values for one input, as dropout inside it does, and an adaptive solver "
            "takes the difference for its error. Keep randomness out of f, draw it once a solve, "
            "or take a method of fixed steps"
        )


def is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two values of f differ by rounding alone."""
    is_short = torch.is_autocast_enabled(one.device.type)
    rounding = SAME_VALUE_SHORT if is_short else SAME_VALUE
    return not (one - other).norm() > rounding * one.norm()
