"""Derivatives in forward mode, by torch.func."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp


def directional(
    function: Callable[..., Tensor], at: tuple[Tensor, ...], direction: tuple[Tensor, ...]
) -> Tensor:
    """The derivative of a function at a point in a direction; it can be differentiated again."""
    _load_decompositions()
    found: Tensor = jvp(function, at, direction)[1]
    return found


@functools.cache
def _load_decompositions() -> None:
    """Makes torch load its decompositions once, which takes seconds, and silences its warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jvp(lambda x: x, (torch.zeros(()),), (torch.zeros(()),))
