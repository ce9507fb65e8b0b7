"""Figures drawn side by side, in forks of a process that has imported whatever they need.

A fork starts at once. It is not one of this process, whose threads may hold locks.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, TypeAlias

from nodebench.planning.available_resources import cpu_count

if TYPE_CHECKING:
    from nodebench.report.figures.style import Drawn

Drawing: TypeAlias = "Callable[[], list[Drawn]]"
"""Draws figures."""

Begin: TypeAlias = Callable[[Drawing], Drawing]
"""Begins to draw; returns the function that waits for the figures, and raises what went wrong."""


@cache
def start_server() -> BaseContext | None:
    """Starts the process that will be forked, which imports in the background.

    From then on, figures are drawn side by side, unless it cannot be started: None.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["nodebench.report.figures.drawing"])
    try:
        forkserver.ensure_running()
    except OSError:  # such as a TMPDIR whose path is too long for a socket
        return None
    return context


@contextmanager
def drawers() -> Generator[Begin]:
    """Draws as many figures at once as there are CPUs, if the server was started.

    Otherwise they are drawn one after the other in this process: a script that starts processes
    must have a main guard, which a run needs, and a report does not.
    """
    server = start_server() if start_server.cache_info().currsize else None
    if server is None:
        yield lambda drawing: drawing
        return
    with ProcessPoolExecutor(cpu_count(), server) as pool:
        yield lambda drawing: pool.submit(drawing).result
