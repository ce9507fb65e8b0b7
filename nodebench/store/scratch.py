"""Scratch folders that belong to one process, and those that killed processes left behind.

A process holds the file `owner` in its folder as a lock, which the system releases when it dies.
A process id would not do: in containers, the next process may have the same one.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

from nodebench.store.lock import holder, locked

OLD_S = 86400.0
"""The age from which a folder of a process on another machine may be abandoned."""

CLAIMED_S = 60.0
"""The age from which a folder without a lock file can no longer be one being created."""

LOCK = "owner"


def new_folder(root: Path, kind: str) -> Path:
    """A unique path for a folder of a kind: `.<kind>-<host>-<8 hex digits>`."""
    return root / f".{kind}-{socket.gethostname()}-{uuid.uuid4().hex[:8]}"


def abandoned(root: Path, kind: str) -> Iterator[Path]:
    """The folders of a kind that dead processes of this machine have left behind."""
    for path in sorted(root.glob(f".{kind}-{socket.gethostname()}-*")):
        lock = path / LOCK
        with contextlib.suppress(FileNotFoundError):  # gone by now
            if holder(lock) is None and (lock.exists() or _age_s(path) > CLAIMED_S):
                yield path


def elsewhere(root: Path, kind: str) -> Iterator[Path]:
    """The old folders of a kind whose processes, on other machines, may or may not be alive."""
    here = f".{kind}-{socket.gethostname()}-"
    for path in sorted(root.glob(f".{kind}-*")):
        if not path.name.startswith(here) and _age_s(path) > OLD_S:
            yield path


def _age_s(path: Path) -> float:
    return time.time() - path.stat().st_mtime


@contextlib.contextmanager
def claimed(root: Path, kind: str) -> Generator[Path]:
    """A new folder that this process holds within the context; the caller removes it."""
    folder = new_folder(root, kind)
    folder.mkdir(parents=True)
    with locked(folder / LOCK, f"`{folder}`"):
        yield folder


@contextlib.contextmanager
def scratch(root: Path, kind: str) -> Generator[Path]:
    """A folder for this process, deleted at the end; first deletes those of killed processes."""
    for leftover in abandoned(root, kind):
        shutil.rmtree(leftover, ignore_errors=True)
    with claimed(root, kind) as folder:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
