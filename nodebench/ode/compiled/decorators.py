"""How numba compiles functions for the CPU.

Importing this module takes a second, so the modules with such functions (`*_kernels.py`) are
imported only where one is called.

Innermost loops start at 0. Otherwise numba cannot tell that an index is not negative, and the
rounding of a loop may depend on which arrays are neighbors in memory (`norm_kernels.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numba

from nodebench.ode.compiled.cache import KernelCache

# Sums may be reordered and products contracted; non-finite values are preserved.
_compiled: Any = partial(numba.njit, error_model="numpy", fastmath={"contract", "nsz", "reassoc"})

compiled_part: Any = _compiled(no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorator for functions that only compiled code can call, which compile in a third less time."""


def compiled(function: Callable[..., Any]) -> Any:
    """Decorator for functions that Python calls. They are kept on disk, if a folder is writable."""
    dispatcher = _compiled(nogil=True)(function)
    with contextlib.suppress(RuntimeError):
        dispatcher._cache = KernelCache(function)  # as `cache=True` would
    return dispatcher
