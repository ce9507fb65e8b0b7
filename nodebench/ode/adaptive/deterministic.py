"""Checks that f is deterministic: adaptive methods mistake randomness for step errors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nodebench.errors import RandomField
from nodebench.ode.buffers import without_side_effects
from nodebench.ode.field import slope

SAME_VALUE = 1e-5
"""The relative difference allowed between two values: GPUs add in any order."""

SAME_VALUE_SHORT = 1e-2
"""The same under autocast, where the factors of products have 8 or 11 significant bits."""


def require_deterministic(f: nn.Module, t: float, y: Tensor) -> None:
    """Rejects an f that draws random numbers, by evaluating it twice at one point.

    The evaluations are not counted, and have no side effects.

    Raises:
        RandomField: if the two values differ.
    """
    with without_side_effects(f, y):
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
