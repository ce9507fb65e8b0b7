"""Replays the random numbers that a right-hand side draws from torch, as dropout does."""

from __future__ import annotations

import contextlib
from collections import abc

import torch
from torch import Tensor


class Generator:
    """The random number generator of a tensor's device.

    Its state is read only if f draws random numbers: on a GPU, reading it synchronises.
    """

    def __init__(self, like: Tensor):
        self._device = like.device if like.is_cuda else None

    def state(self) -> Tensor:
        """The generator's state, which determines the next draws."""
        if self._device is not None:
            return torch.cuda.get_rng_state(self._device)
        return torch.get_rng_state()

    def _set(self, state: Tensor) -> None:
        if self._device is not None:
            torch.cuda.set_rng_state(state, self._device)
        else:
            torch.set_rng_state(state)

    @contextlib.contextmanager
    def back_at(self, state: Tensor | None) -> abc.Generator[None]:
        """A context that repeats the draws made from `state` on; None changes nothing."""
        if state is None:
            yield
            return
        now = self.state()
        self._set(state)
        try:
            yield
        finally:
            self._set(now)
