"""Functions that numba compiles for the CPU, and the threads that run them.

Importing this takes a second, so it is imported where such a function is called.

Numba compiles a function again when its own file has changed, whatever it calls: who edits a
function that others call removes the `__pycache__` beside its callers.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from typing import Any

import numba
import torch

# Sums may be taken in any order and products contracted; what is not finite stays so.
_compiled: Any = partial(numba.njit, error_model="numpy", fastmath={"contract", "nsz", "reassoc"})

compiled: Any = _compiled(cache=True, nogil=True)
"""Of functions that Python calls."""

compiled_part: Any = _compiled(no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Of functions that only compiled ones call, which Python cannot: a third less to compile."""


def in_threads(kernel: Callable[..., None], items: int, *arguments: Any) -> None:
    """Runs a kernel over so many items, in as many threads as torch may use.

    A kernel is called with the numbers of its first item and of the one after its last.
    """
    threads = min(torch.get_num_threads(), items)
    if threads == 1:
        kernel((0, items), *arguments)
        return
    bounds = [items * i // threads for i in range(threads + 1)]
    own, *others = itertools.pairwise(bounds)
    pool = _pool(os.getpid(), threads - 1)
    running = [pool.submit(kernel, each, *arguments) for each in others]
    try:
        kernel(own, *arguments)
    finally:
        wait(running)  # they write to the caller's arrays
    for each in running:
        each.result()


@cache
def _pool(_process: int, threads: int) -> ThreadPoolExecutor:
    """One for each process, since a fork has no threads of the one before."""
    return ThreadPoolExecutor(threads)
