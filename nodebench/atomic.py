"""Files replaced as a whole: a reader never sees half of one, and a kill never leaves it."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any


def write(path: Path, content: str | bytes, aside: Path | None = None) -> None:
    """Replaces a file as a whole; what it was before is moved `aside`, if that is given."""
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
