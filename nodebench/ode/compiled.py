"""Functions that numba compiles for the CPU, and the threads that run them.

Importing this takes a second, so it is imported where such a function is called.

Numba compiles a function again when its own file has changed, whatever it calls: who edits a
function that others call removes the `__pycache__` beside its callers.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import cache, partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeAlias

import numba
import torch

# Sums may be taken in any order and products contracted; what is not finite stays so.
_compiled: Any = partial(numba.njit, error_model="numpy", fastmath={"contract", "nsz", "reassoc"})

compiled: Any = _compiled(cache=True, nogil=True)
"""Of functions that Python calls."""

compiled_part: Any = _compiled(no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Of functions that only compiled ones call, which Python cannot: a third less to compile."""


_Call: TypeAlias = "tuple[Callable[..., None], tuple[Any, ...], SimpleQueue[BaseException | None]]"
"""A kernel, its arguments, and where it puts its failure, or None at its end."""


def in_threads(kernel: Callable[..., None], items: int, *arguments: Any, together: int = 1) -> None:
    """Runs a kernel over so many items, in as many threads as torch may use.

    A kernel is called with the numbers of its first item and of the one after its last. A thread's
    items are whole numbers of those that go `together`, but for the rest of the last thread's.
    """
    units = max(1, items // together)
    threads = min(torch.get_num_threads(), units)
    if threads == 1:
        kernel((0, items), *arguments)
        return
    bounds = [units * i // threads * together for i in range(threads)]
    own, *others = itertools.pairwise([*bounds, items])
    calls = _helpers(os.getpid(), torch.get_num_threads() - 1)
    failures = SimpleQueue[BaseException | None]()
    for each in others:
        calls.put((kernel, (each, *arguments), failures))
    try:
        kernel(own, *arguments)
    finally:
        # They write to the caller's arrays. An interrupt while it waits is the only way out.
        found = [failures.get() for _ in others]
    for failure in filter(None, found):
        raise failure


@cache
def _helpers(_process: int, threads: int) -> SimpleQueue[_Call]:
    """The queue of some threads that wait for calls, for one process: a fork has no threads.

    An executor's futures take as long as a small kernel.
    """
    calls = SimpleQueue[_Call]()
    for _ in range(threads):
        Thread(target=_take_calls, args=(calls,), daemon=True).start()
    return calls


def _take_calls(calls: SimpleQueue[_Call]) -> None:
    while True:
        kernel, arguments, failures = calls.get()
        failure: BaseException | None = None
        try:
            kernel(*arguments)
        except BaseException as error:  # noqa: BLE001  # the caller raises it
            failure = error
        del kernel, arguments  # or the caller's arrays would live until the next call
        failures.put(failure)
        del failures, failure
