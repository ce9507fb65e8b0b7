"""Printing, and standard streams whose failures and encodings never end a training."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from rich.console import Console

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

STDOUT = "stdout"
"""The file name of stdout in an OSError."""


class Stream(io.TextIOWrapper):
    """Standard output or error; prints `?` for characters that its encoding lacks.

    If a write fails, for example on a full disk or a broken pipe, the error is raised if
    `is_needed`, otherwise ignored. All later output is discarded.
    """

    is_needed = False

    def write(self, text: str) -> int:
        """Writes the text; see the class for failures."""
        if self.closed:  # by a user's own code, so there is nowhere to write
            return len(text)
        try:
            return super().write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Flushes the stream; see the class for failures."""
        if self.closed:
            return
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())  # also for buffered text and for child processes
        os.close(nowhere)
        if self.is_needed:
            raise OSError(error.errno, error.strerror, STDOUT) from error


def say(text: str) -> None:
    """Prints a line on stdout."""
    print(text, flush=True)


def take_over() -> None:
    """Turns the standard streams into `Stream`s; a closed one is opened on /dev/null.

    Otherwise a file opened later would get its descriptor, and receive the printed text.
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
    """From now on, errors in writing to stdout are ignored."""
    if isinstance(sys.stdout, Stream):
        sys.stdout.is_needed = False


def _stream(before: TextIO | None, number: int) -> TextIO:
    if before is None:
        binary = open(number, "wb", closefd=False)  # noqa: SIM115 - open until the process ends
        return Stream(binary, encoding="utf-8", errors="replace", line_buffering=True)
    if not isinstance(before, io.TextIOWrapper):
        return before  # already replaced, for example by a test or a notebook
    encoding, lines = before.encoding, before.line_buffering
    return Stream(before.buffer, encoding=encoding, errors="replace", line_buffering=lines)
