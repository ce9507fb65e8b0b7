"""Reading what torch has saved, and refusing what is damaged or would run code."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch


def read_tensors(path: Path) -> Any:
    """The values in a file of torch's, on the CPU; plain values and tensors only.

    Raises:
        ValueError: if the file is damaged, or holds something else.
        OSError: if it cannot be read.
    """
    if not path.is_file():  # a device may have no end
        raise FileNotFoundError(f"`{path}` is no file")
    content = io.BytesIO(path.read_bytes())
    problem = "its checksums do not hold"
    try:
        if not zipfile.is_zipfile(content) or _is_sound(content):  # old forms have no checksums
            content.seek(0)
            return torch.load(content, map_location="cpu", weights_only=True)
    except MemoryError:
        raise  # of this moment, and not of the file
    except Exception as error:  # noqa: BLE001 - flipped bits can raise anything
        problem = f"{type(error).__name__}: {error}"
    raise ValueError(problem)


def _is_sound(content: io.BytesIO) -> bool:
    """Whether every part of the archive that torch writes has the CRC-32 that it was given."""
    with zipfile.ZipFile(content) as archive:
        return archive.testzip() is None
