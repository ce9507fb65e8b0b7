"""Turns every request to end (Ctrl-C, a closing shell, `kill`) into a KeyboardInterrupt.

`nodebench/__main__.py` handles interrupts until this module is imported. `execution/ray_tune.py`
undoes the handler that Ray sets.
"""

from __future__ import annotations

import os
import signal
import sys
from _thread import interrupt_main
from collections.abc import Generator
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING

import typer

from nodebench.cli.stream import err, talk_on

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

INTERRUPTED = 130
"""The exit status of an interrupted command, as in shells."""

REPEATED_AFTER_S = 0.01
"""The time after which a lost interrupt is repeated, when its callback has ended."""


@contextmanager
def interruptible() -> Generator[None]:
    """Makes Ctrl-C end the command with one line and status 130; finished work is kept."""
    talk_on()
    try:
        yield
    except KeyboardInterrupt:
        err.print("interrupted; the same command resumes from here", markup=False)
        raise typer.Exit(INTERRUPTED) from None


def heed_interrupts() -> None:
    """Turns every termination signal into a KeyboardInterrupt, unless it is ignored."""
    signal.signal(signal.SIGTERM, _interrupt)
    for number in (signal.SIGINT, signal.SIGHUP):  # ignored in background jobs and by `nohup`
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    sys.unraisablehook = _repeat_interrupt


def leave_on_interrupt() -> None:
    """From now on, an interrupt ends the process at once: only the cleanup is left to do."""
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, _leave)


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number))


def _repeat_interrupt(lost: UnraisableHookArgs) -> None:
    """Repeats an interrupt in the callback of a weak reference, where Python drops exceptions."""
    if lost.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(lost)
        return
    numbers = getattr(lost.exc_value, "args", ()) or (signal.SIGINT,)
    again = Timer(REPEATED_AFTER_S, interrupt_main, numbers)
    again.daemon = True
    again.start()


def _leave(_signal: int, _frame: object) -> None:
    os._exit(INTERRUPTED)
