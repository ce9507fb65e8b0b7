"""Processes that help to draw figures, since matplotlib draws one at a time.

A helper imports what drawing needs as soon as it is started, takes one task after another from its
standard input, and ends with the process that started it. It is no process of `multiprocessing`,
which would import the user's script again.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeVar

from nodebench.planning.available_resources import cpu_count

_Result = TypeVar("_Result")
_Item = TypeVar("_Item")

MOST_HELPERS = 2
"""With more, drawing would end no sooner: the longest task takes a third of the time of all."""

PROGRAM = "import sys; sys.path[:] = {path}; from {module} import serve; serve()"


class Helper:
    """A process that carries out tasks."""

    def __init__(self) -> None:
        program = PROGRAM.format(path=[*map(str, sys.path)], module=__name__)
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # so that Ctrl-C does not reach it: it is killed instead
        )

    def result(self, task: Callable[[], _Result]) -> _Result:
        """What a task returns.

        Raises:
            EOFError, OSError: if the process is lost.
        """
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(pickle.dumps(task))
        self._process.stdin.flush()
        found: _Result = pickle.load(self._process.stdout)
        return found

    def kill(self) -> None:
        """Ends the process."""
        self._process.kill()
        with suppress(OSError):  # a task that was not sent whole
            self._process.communicate()


def serve() -> None:
    """Carries out tasks from standard input, and writes their results to standard output."""
    importlib.import_module("nodebench.report.figures.drawing")
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints
    with suppress(EOFError, BrokenPipeError):  # the process that started this one has ended
        while True:
            task = pickle.load(sys.stdin.buffer)
            results.write(pickle.dumps(task()))
            results.flush()


_helpers: list[Helper] = []


@contextmanager
def helpers() -> Generator[None]:
    """A context in which `share` has helpers, one for each further CPU."""
    with suppress(OSError):  # no further process: this one does the work
        _helpers.extend(Helper() for _ in range(min(cpu_count() - 1, MOST_HELPERS)))
    try:
        yield
    finally:
        _stop()


def _stop() -> None:
    while _helpers:
        _helpers.pop().kill()


def share(tasks: Sequence[Callable[[], _Result]]) -> list[_Result]:
    """The results of tasks, in their order, by this process and its helpers.

    This process takes the tasks of a helper that is lost, and those that cannot be sent to one.
    """
    waiting, found = deque(enumerate(tasks)), dict[int, _Result]()

    def by_helper(helper: Helper) -> None:  # until it fails
        for number, task in _taken(waiting):
            found[number] = helper.result(task)

    with ThreadPoolExecutor(MOST_HELPERS) as threads, ExitStack() as on_error:
        on_error.callback(_stop)  # nobody waits for a helper after Ctrl-C
        on_error.callback(waiting.clear)
        for helper in _helpers:
            threads.submit(by_helper, helper)
        for number, task in _taken(waiting):
            found[number] = task()
        on_error.pop_all()
    return [found[n] if n in found else task() for n, task in enumerate(tasks)]


def _taken(waiting: deque[_Item]) -> Iterator[_Item]:
    """Takes items, as other threads do, until none is left."""
    with suppress(IndexError):
        while True:
            yield waiting.popleft()
