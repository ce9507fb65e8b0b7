"""What modules make of their weights once a solve, throughout which f stays the same function."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar, cast

from torch import nn
from torch.nn.utils import parametrize

Made = TypeVar("Made")

_made: dict[Hashable, Any] | None = None


@contextlib.contextmanager
def weights_made_once() -> Iterator[None]:
    """Meanwhile, weight norms and whatever else is made `once_per_solve` are made once."""
    global _made
    outer, _made = _made, {} if _made is None else _made
    try:
        with parametrize.cached():
            yield
    finally:
        _made = outer


def once_per_solve(module: nn.Module, what: Hashable, make: Callable[[], Made]) -> Made:
    """What `make` gives, made anew unless this solve has it already."""
    if _made is None:
        return make()
    key = (id(module), what)
    if key not in _made:
        _made[key] = make()
    return cast("Made", _made[key])
