"""Folders that belong to one process, and those that killed processes left."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

OLD_S = 86400.0
"""The age from which a folder of another machine's process may have been left by it."""


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
