"""Ctrl-C, a shell that closes, and `kill`: every request to end becomes a KeyboardInterrupt.

Before this module is imported, `nodebench/__main__.py` answers; `execution/ray_tune.py` undoes the
handler that Ray sets.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from contextlib import contextmanager

import typer

from nodebench.cli.stream import err, talk_on

INTERRUPTED = 130
"""The exit status of a command that was interrupted, as shells have it."""


@contextmanager
def interruptible() -> Generator[None]:
    """Ctrl-C ends the command with a line and status 130; what is done is kept."""
    talk_on()
    try:
        yield
    except KeyboardInterrupt:
        err.print("interrupted; the same command resumes from here", markup=False)
        raise typer.Exit(INTERRUPTED) from None


def heed_interrupts() -> None:
    """Makes a KeyboardInterrupt of every request to end, unless it is to be ignored."""
    signal.signal(signal.SIGTERM, _interrupt)
    for number in (signal.SIGINT, signal.SIGHUP):  # of a shell's background, and of `nohup`
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def leave_on_interrupt() -> None:
    """From now on an interrupt ends the process at once: it has told all and only clears up."""
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, _leave)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _leave(_signal: int, _frame: object) -> None:
    os._exit(INTERRUPTED)
