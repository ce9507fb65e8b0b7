"""Checks that f treats each sample independently, at its own time, as steps per sample require."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nodebench.errors import FieldError
from nodebench.ode.adaptive.deterministic import is_same
from nodebench.ode.buffers import without_side_effects
from nodebench.ode.field import slope

CURE = "take one step per batch (`control.step: batch`)"


def require_independent(f: nn.Module, t: float, y: Tensor) -> None:
    """Rejects an f that cannot be evaluated for each sample at its own time.

    f is called with a time of shape [batch, 1, ...], and again with other states for all samples
    but the first. The evaluations are not counted, and have no side effects.

    Raises:
        FieldError: if f fails, differs from its value for a single time, or mixes samples.
    """
    if any(isinstance(part, _BatchNorm) and part.training for part in f.modules()):
        raise FieldError(
            "batch norm inside f makes each sample's slope depend on all others, which are at "
            f"times of their own with `control.step: sample`: take another norm, or {CURE}"
        )
    if not y.dim() or not len(y):
        raise FieldError(f"`control.step: sample` needs a batch of states: {CURE}")
    times = y.new_full((len(y), *(1,) * (y.dim() - 1)), t)
    others = torch.cat((y[:1], y[:1].expand_as(y[1:]).add(0.5)))
    with torch.no_grad(), without_side_effects(f, y):
        expected = slope(f, t, y)
        try:
            found, first = slope(f, times, y), slope(f, times, others)
        except (RuntimeError, ValueError, TypeError) as error:
            raise FieldError(
                f"f cannot take a time for each sample, of shape {list(times.shape)}: {error}. Let "
                f"it combine t and y by broadcasting, or {CURE}"
            ) from error
    if not is_same(found, expected):
        raise FieldError(
            f"f gives something else for one time for each sample, of shape {list(times.shape)}, "
            f"than for one time: let it combine t and y by broadcasting, or {CURE}"
        )
    if not is_same(first[:1], expected[:1]):
        raise FieldError(
            "a sample's slope depends on the other samples, which are at times of their own with "
            f"`control.step: sample`: keep samples apart in f, or {CURE}"
        )
