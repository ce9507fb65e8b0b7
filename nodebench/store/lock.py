"""Lock files, which the system releases when a process dies. For trials: `TrialFolder.locked`."""

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
"""The shortest time that `locked` waits: readers hold a lock for less, unless they copy."""


@contextlib.contextmanager
def locked(path: Path, what: str, wait_s: float = 0.0, *, shared: bool = False) -> Generator[None]:
    """Holds a lock file for this process; the system releases it when the process dies.

    A `shared` lock excludes only exclusive locks.

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
    """Names this process in a lock file while it holds the lock, unless the disk is full."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    text = f"process {os.getpid()} on {socket.gethostname()}, since {since}"
    try:
        with contextlib.suppress(OSError):
            file.truncate(0)
            os.write(file.fileno(), text.encode())
        yield
    finally:
        with contextlib.suppress(OSError):  # shared holders do not sign
            file.truncate(0)


@contextlib.contextmanager
def read_locked(path: Path) -> Generator[bool]:
    """Holds a shared lock, which keeps writers out; yields False if a writer holds the lock.

    It writes nothing, so that it works in a read-only folder.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
        except FileNotFoundError:
            yield True
            return
        yield _acquired(file, fcntl.LOCK_SH, path)


def holder(path: Path) -> str | None:
    """A description of the process that holds a lock exclusively; None if there is none."""
    with read_locked(path) as is_free:
        return None if is_free else path.read_text(encoding="utf-8") or "another process"


def _acquired(file: IO[Any], kind: int, path: Path) -> bool:
    """Takes the lock; False if it is held, or the file is no longer the one at the path."""
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
