"""Values computed from weights once per solve, throughout which f stays the same function."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Hashable
from typing import Any, TypeVar, cast

from torch import nn
from torch.nn.utils import parametrize

CachedValue = TypeVar("CachedValue")

_values: dict[Hashable, Any] | None = None


@contextlib.contextmanager
def weights_made_once() -> Generator[None]:
    """A context in which weight norms and all `once_per_solve` values are computed only once."""
    global _values
    outer = _values
    _values = {} if outer is None else outer
    try:
        with parametrize.cached():
            yield
    finally:
        _values = outer


def once_per_solve(
    module: nn.Module, what: Hashable, make: Callable[[], CachedValue]
) -> CachedValue:
    """The result of `make`, which is called once per solve."""
    if _values is None:
        return make()
    key = (id(module), what)
    if key not in _values:
        _values[key] = make()
    return cast("CachedValue", _values[key])
