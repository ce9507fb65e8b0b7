"""What a module changes in itself when it is called: batch statistics, power iterations.

A backward pass that calls it again must not move them on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Rewound:
    """Meanwhile, a module's buffers have these values, and afterwards those that they had.

    Unlike a generator's, such a context can be entered again, as often as a graph asks for it.
    """

    def __init__(self, module: nn.Module, values: Sequence[Tensor]):
        self.module, self.values = module, values
        self._kept: list[list[Tensor]] = []

    def __enter__(self) -> None:
        self._kept.append(copies(self.module))
        _assign(self.module, self.values)

    def __exit__(self, *_: object) -> None:
        _assign(self.module, self._kept.pop())


def copies(module: nn.Module) -> list[Tensor]:
    """The buffers' present values."""
    return [buffer.detach().clone() for buffer in module.buffers()]


@torch.no_grad()
def _assign(module: nn.Module, values: Sequence[Tensor]) -> None:
    for buffer, value in zip(module.buffers(), values, strict=True):
        buffer.copy_(value)


def buffers_kept(module: nn.Module) -> AbstractContextManager[None]:
    """Afterwards, the buffers are what they were: nothing has been learned from what was seen."""
    return Rewound(module, copies(module))


@contextlib.contextmanager
def settled_weights(module: nn.Module) -> Iterator[None]:
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
