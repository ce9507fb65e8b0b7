"""The threads that run compiled functions."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeAlias

import torch

_Call: TypeAlias = "tuple[Callable[..., None], tuple[Any, ...], SimpleQueue[BaseException | None]]"
"""A kernel, its arguments, and the queue that receives its exception, or None on success."""


def in_threads(kernel: Callable[..., None], items: int, *arguments: Any, together: int = 1) -> None:
    """Runs a kernel over a number of items, in as many threads as torch may use.

    The kernel's first argument is the range of its items, (first, last + 1). Each thread gets a
    multiple of `together` items, except that the last thread also takes the remainder.
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
        # Threads write to the caller's arrays, so only an interrupt may end this wait early.
        found = [failures.get() for _ in others]
    for failure in filter(None, found):
        raise failure


@cache
def _helpers(_process: int, threads: int) -> SimpleQueue[_Call]:
    """Starts threads that wait for calls, and returns their queue.

    They are cached by process, because a fork inherits no threads. There is no executor, because
    its futures take as long as a small kernel.
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
        del kernel, arguments  # otherwise the caller's arrays would live until the next call
        failures.put(failure)
        del failures, failure
