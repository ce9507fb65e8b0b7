"""Lock files, and folders that belong to one process; both are left behind by `kill -9`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nodebench.errors import StoreError

OLD_S = 86400.0
"""The age from which a folder of another machine's process may have been left by it."""


@contextlib.contextmanager
def held(path: Path, what: str, wait_s: float) -> Iterator[None]:
    """Holds a lock file for this process; the system lets go when the process dies.

    Raises:
        StoreError: if another process still holds it after `wait_s`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        deadline = time.monotonic() + wait_s
        while not _acquired(file):
            if time.monotonic() > deadline:
                file.seek(0)
                holder = file.read() or "another process"
                raise StoreError(f"{what} is held by {holder}. Wait until it ends, or stop it")
            time.sleep(0.2)
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        text = f"process {os.getpid()} on {socket.gethostname()}, since {since}"
        with contextlib.suppress(OSError):  # a full disk keeps nobody from clearing it
            os.write(file.fileno(), text.encode())
        yield


@contextlib.contextmanager
def unheld(path: Path) -> Iterator[bool]:
    """Keeps others from taking a lock meanwhile; False where a process holds it already.

    Writes nothing, so that it works in a folder that is read-only.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("r"))
        except FileNotFoundError:
            yield True
            return
        yield _acquired(file, fcntl.LOCK_SH)


def holder(path: Path) -> str | None:
    """Who holds a lock file, in words; None if nobody does."""
    with unheld(path) as is_free:
        return None if is_free else path.read_text(encoding="utf-8") or "another process"


def _acquired(file: IO[str], kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def own_folder(root: Path, kind: str) -> Path:
    """The place of this process's folder of a kind, `.<kind>-<host>-<process>`."""
    return root / f".{kind}-{socket.gethostname()}-{os.getpid()}"


def abandoned(root: Path, kind: str) -> Iterator[Path]:
    """The folders of a kind that dead processes of this machine have left."""
    here = f".{kind}-{socket.gethostname()}-"
    for path in sorted(root.glob(f"{here}*")):
        process = path.name.removeprefix(here)
        if process.isdecimal() and not _is_alive(int(process)):
            yield path


def elsewhere(root: Path, kind: str) -> Iterator[Path]:
    """The old folders of a kind whose processes, on other machines, may or may not be alive."""
    here = f".{kind}-{socket.gethostname()}-"
    for path in sorted(root.glob(f".{kind}-*")):
        if not path.name.startswith(here) and time.time() - path.stat().st_mtime > OLD_S:
            yield path


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing, and fails if there is no such process
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


@contextlib.contextmanager
def scratch(root: Path, kind: str) -> Iterator[Path]:
    """A folder of this process alone, gone at the end, as are those of killed processes."""
    for leftover in abandoned(root, kind):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = own_folder(root, kind)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
