"""What a right-hand side draws from torch's random numbers, as dropout does, to draw it again."""

from __future__ import annotations

import contextlib
from collections import abc

import torch
from torch import Tensor


class Generator:
    """The generator of a state's device, watched through a solve.

    Its state is kept only where f turns out to draw: of a GPU, reading it would wait for it.
    """

    def __init__(self, like: Tensor):
        self._device = like.device if like.is_cuda else None

    def state(self) -> Tensor:
        """What would be drawn next follows from this."""
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
        """Meanwhile, what is drawn is what was drawn from `state` on; nothing changes for None."""
        if state is None:
            yield
            return
        now = self.state()
        self._set(state)
        try:
            yield
        finally:
            self._set(now)
