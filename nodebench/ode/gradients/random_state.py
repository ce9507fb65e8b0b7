"""Finds out whether a right-hand side draws random numbers from torch, as dropout does.

If so, they are replayed, or refused by gradients that solve backwards.
"""

from __future__ import annotations

import contextlib
from collections import abc
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from nodebench.errors import FieldError
from nodebench.ode.buffers import without_side_effects
from nodebench.ode.field import Counted, Field, slope

_found: WeakKeyDictionary[nn.Module, dict[tuple[bool, ...], bool]] = WeakKeyDictionary()
"""f -> whether it draws random numbers, by the modes of its parts: training or evaluation."""


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


@torch.no_grad()
def is_random(f: nn.Module, t: float, y: Tensor) -> bool:
    """Whether f draws random numbers from torch's generator of the state's device.

    In each combination of its parts' modes, f is evaluated once to find out; the evaluation is not
    counted, and has no side effects.
    """
    if isinstance(f, Field) and f.is_random is not None:
        return f.is_random
    known, modes = _found.setdefault(f, {}), tuple(part.training for part in f.modules())
    if modes not in known:
        generator = Generator(y)
        with without_side_effects(f, y):
            before = generator.state()
            slope(f, t, y)
            known[modes] = not torch.equal(before, generator.state())
    return known[modes]


def require_not_random(f: Counted, t: float, y: Tensor, gradient: str) -> None:
    """Rejects an f that would be another function on the way back.

    Raises:
        FieldError: if f draws random numbers.
    """
    if is_random(f.module, t, y):
        raise FieldError(
            f"the gradient `{gradient}` solves backwards, and f draws other random numbers then: "
            "take what is random, such as dropout, out of f, or the gradient `recompute` or `aca`"
        )
