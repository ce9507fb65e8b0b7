"""Buffers that a module updates when it is called: batch statistics, power iterations.

A backward pass that calls the module again must not update them, nor must a check of the module.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from nodebench.ode.weight_cache import weights_made_once


class Rewound:
    """A context in which buffers have the given values; afterwards, they have their previous ones.

    Unlike a generator-based context, it can be entered as often as an autograd graph needs it.
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
    """A module's buffers, or all except the running statistics of batch norm.

    A backward pass may update those: in training, f does not depend on them.
    """
    norms = [part for part in module.modules() if but_batch_norm and isinstance(part, _BatchNorm)]
    moving = {id(buffer) for norm in norms for buffer in norm.buffers()}
    return [buffer for buffer in module.buffers() if id(buffer) not in moving]


def copies(buffers: Sequence[Tensor]) -> list[Tensor]:
    """Copies of the buffers' current values."""
    return [buffer.detach().clone() for buffer in buffers]


@torch.no_grad()
def _assign(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)


def buffers_kept(
    module: nn.Module, *, but_batch_norm: bool = False
) -> AbstractContextManager[None]:
    """Restores a module's buffers at the end of the context.

    With `but_batch_norm`, the running statistics of batch norm are not restored.
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


@contextlib.contextmanager
def additional_calls(module: nn.Module, *, but_batch_norm: bool = False) -> Generator[None]:
    """A context for calls of a module besides its forward pass.

    They do not change its buffers, and its spectral norms are those of the forward pass. With
    `but_batch_norm`, the running statistics of batch norm may change.
    """
    with buffers_kept(module, but_batch_norm=but_batch_norm), settled_weights(module):
        yield


@contextlib.contextmanager
def without_side_effects(module: nn.Module, like: Tensor) -> Generator[None]:
    """A context in which calls of a module change neither its buffers nor the random state.

    `like` is a tensor on the module's device. Weights that parametrizations compute are computed
    once.
    """
    devices = [like.device] if like.is_cuda else []
    with torch.random.fork_rng(devices), additional_calls(module), weights_made_once():
        yield
