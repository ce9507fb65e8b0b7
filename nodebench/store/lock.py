"""Lock files, which the system releases when a process dies; a trial's: `TrialFolder.locked`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

from nodebench.errors import StoreError

LOOK_S = 1.0
"""The shortest time that `locked` waits: a reader holds a lock for less, unless it copies."""


@contextlib.contextmanager
def locked(path: Path, what: str, wait_s: float = 0.0, *, shared: bool = False) -> Generator[None]:
    """Holds a lock file for this process; the system lets go when the process dies.

    A `shared` lock keeps out only those who want it for themselves.

    Raises:
        StoreError: if another process still holds it after `wait_s`, or LOOK_S if that is more.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = time.monotonic() + max(wait_s, LOOK_S)
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+", encoding="utf-8") as file:
            if _acquired(file, kind, path):
                with _signed(file) if not shared else contextlib.nullcontext():
                    yield
                return
            if time.monotonic() > deadline:
                file.seek(0)
                holder = file.read() or "another process"
                raise StoreError(f"{what} is held by {holder}. Wait until it ends, or stop it")
        time.sleep(0.1)


@contextlib.contextmanager
def _signed(file: IO[str]) -> Generator[None]:
    """A lock file that says meanwhile who holds it, unless the disk is full."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    text = f"process {os.getpid()} on {socket.gethostname()}, since {since}"
    try:
        with contextlib.suppress(OSError):
            file.truncate(0)
            os.write(file.fileno(), text.encode())
        yield
    finally:
        with contextlib.suppress(OSError):  # or it names this one while another holds it unsigned
            file.truncate(0)


@contextlib.contextmanager
def read_locked(path: Path) -> Generator[bool]:
    """A shared lock for reading, which keeps writers out meanwhile; False if a writer holds it.

    Writes nothing, so that it works in a folder that is read-only.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
        except FileNotFoundError:
            yield True
            return
        yield _acquired(file, fcntl.LOCK_SH, path)


def holder(path: Path) -> str | None:
    """Who holds a lock file for itself, in words; None if nobody does."""
    with read_locked(path) as is_free:
        return None if is_free else path.read_text(encoding="utf-8") or "another process"


def _acquired(file: IO[Any], kind: int, path: Path) -> bool:
    """Takes the lock, unless it is held, or the file is no longer the one of that name."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        return _is_at(file, path)
    except BlockingIOError:
        return False


def _is_at(file: IO[Any], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
