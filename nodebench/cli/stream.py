"""What is printed, and standard streams whose failures and encodings never end a training."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from rich.console import Console

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

STDOUT = "stdout"
"""What errors call it, where they name a file."""


class Stream(io.TextIOWrapper):
    """Standard output or error: `?` for what its encoding lacks.

    Where it fails, as a full disk or a pipe that nobody reads, the error is raised while
    `is_needed`, and forgotten else. What comes after goes nowhere.
    """

    is_needed = False

    def write(self, text: str) -> int:
        """Writes the text; of a stream that fails, see above."""
        if self.closed:  # by a user's own code: nobody is left to be told
            return len(text)
        try:
            return super().write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Flushes the stream; of one that fails, see above."""
        if self.closed:
            return
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())  # also for what is buffered, and for other processes
        os.close(nowhere)
        if self.is_needed:
            raise OSError(error.errno, error.strerror, STDOUT) from error


def say(text: str) -> None:
    """Prints a line on stdout."""
    print(text, flush=True)


def take_over() -> None:
    """Makes the standard streams `Stream`s; one that is closed leads nowhere.

    A file that is opened later would else have its number, and get what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    sys.stdout, sys.stderr = _stream(sys.stdout, 1), _stream(sys.stderr, 2)
    if isinstance(sys.stdout, Stream):
        sys.stdout.is_needed = True


def talk_on() -> None:
    """From now on nothing that is done depends on whether stdout can be written."""
    if isinstance(sys.stdout, Stream):
        sys.stdout.is_needed = False


def _stream(before: TextIO | None, number: int) -> TextIO:
    if before is None:
        binary = open(number, "wb", closefd=False)  # noqa: SIM115 - as long as the process
        return Stream(binary, encoding="utf-8", errors="replace", line_buffering=True)
    if not isinstance(before, io.TextIOWrapper):
        return before  # somebody's own, as a test's or a notebook's
    encoding, lines = before.encoding, before.line_buffering
    return Stream(before.buffer, encoding=encoding, errors="replace", line_buffering=lines)
