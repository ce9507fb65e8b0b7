"""Reading and writing files; a file is replaced as a whole, so readers never see half of one."""

from __future__ import annotations

import errno
import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
"""The folder of nodebench's own code."""


def write(path: Path, content: str | bytes, aside: Path | None = None) -> None:
    """Replaces a file as a whole; moves the previous file to `aside`, if given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # With the host: on a shared file system, processes of two nodes may have the same id.
    writer = f"{socket.gethostname()}-{os.getpid()}"
    partial = path.with_name(f".{path.name}.{writer}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        if aside is not None and path.exists():
            path.replace(aside)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_json(path: Path, default: Any) -> Any:
    """The JSON value in a file; the default if the file is absent, damaged or of another type."""
    try:
        with open(path, "rb", buffering=0) as file:  # unbuffered: a plan reads thousands
            value = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        return default
    return value if default is None or isinstance(value, type(default)) else default


def modified(path: Path) -> int:
    """The time of a file's last change, in nanoseconds; 0 if the file is absent."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def require_writable(folder: Path) -> None:
    """Refuses a folder that cannot be written or, if it is missing, could not be created.

    Leaves nothing in the folder. A folder marked as read-only is refused even if root could write
    to it, because in a container every user is root.

    Raises:
        OSError: with the reason.
    """
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"`{there}` is not a folder")
    if not there.stat().st_mode & 0o222:
        raise PermissionError(errno.EACCES, f"`{there}` is read-only")
    with tempfile.TemporaryFile(dir=there, buffering=0) as file:
        file.write(b"\0")  # fails on a full disk
