"""What a module changes in itself when it is called: batch statistics, power iterations.

A backward pass that calls it again must not move them on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize


class Rewound:
    """Meanwhile, buffers have these values, and afterwards those that they had.

    Unlike a generator's, such a context can be entered again, as often as a graph asks for it.
    """

    def __init__(self, buffers: Sequence[Tensor], values: Sequence[Tensor]):
        self.buffers, self.values = buffers, values
        self._kept: list[list[Tensor]] = []

    def __enter__(self) -> None:
        self._kept.append(copies(self.buffers))
        _assign(self.buffers, self.values)

    def __exit__(self, *_: object) -> None:
        _assign(self.buffers, self._kept.pop())


def buffers_of(module: nn.Module, *, but_batch_norm: bool = False) -> list[Tensor]:
    """A module's buffers, or all but the running statistics of batch norm.

    Those may move on in a backward pass: in training, f does not depend on them.
    """
    norms = [part for part in module.modules() if but_batch_norm and isinstance(part, _BatchNorm)]
    moving = {id(buffer) for norm in norms for buffer in norm.buffers()}
    return [buffer for buffer in module.buffers() if id(buffer) not in moving]


def copies(buffers: Sequence[Tensor]) -> list[Tensor]:
    """Their present values."""
    return [buffer.detach().clone() for buffer in buffers]


@torch.no_grad()
def _assign(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)


def buffers_kept(
    module: nn.Module, *, but_batch_norm: bool = False
) -> AbstractContextManager[None]:
    """Puts a module's buffers back to what they were before, at the end of the context.

    With `but_batch_norm`, batch norm's running statistics keep what the context changed.
    """
    buffers = buffers_of(module, but_batch_norm=but_batch_norm)
    return Rewound(buffers, copies(buffers))


@contextlib.contextmanager
def settled_weights(module: nn.Module) -> Generator[None]:
    """Stops power iterations, so that spectral norms are those of the forward solve."""
    iterating = [
        part
        for part in module.modules()
        if isinstance(part, parametrize.ParametrizationList) and part.training
    ]
    for part in iterating:
        part.eval()
    try:
        yield
    finally:
        for part in iterating:
            part.train()
