"""Files: replaced as a whole, so that a reader never sees half of one."""

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
    """Replaces a file as a whole; the previous file is moved to `aside`, if that is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The host too: on a shared path, processes of two nodes may have one number.
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
    """A file's value; the default if it is absent or damaged, which counts as absent."""
    try:
        with open(path, "rb", buffering=0) as file:  # thousands are read for a plan
            value = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        return default
    return value if default is None or isinstance(value, type(default)) else default


def modified(path: Path) -> int:
    """When a file was changed last, in nanoseconds; 0 if it is absent."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def require_writable(folder: Path) -> None:
    """Refuses a folder that cannot be written, or where it is not there, could not be made.

    Nothing is left in it. Marked read-only is enough: root could write there nevertheless, and in
    a container everybody is root.

    Raises:
        OSError: saying why.
    """
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"`{there}` is not a folder")
    if not there.stat().st_mode & 0o222:
        raise PermissionError(errno.EACCES, f"`{there}` is read-only")
    with tempfile.TemporaryFile(dir=there, buffering=0) as file:
        file.write(b"\0")  # which a full disk refuses
