"""Reads weights from files, and refuses files that are damaged or would run code."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nodebench.errors import InputError

DAMAGED = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError),
    *(RuntimeError, TypeError, ValueError),
)
"""The exceptions that torch and pickle raise for flipped bits. `MemoryError` is not one of them."""

MARKS_A_FOLDER = 0x10
"""The bit of a ZIP entry's external attributes that marks a folder for MS-DOS and torch."""


def read_tensors(path: Path) -> Any:
    """The values in a torch file, on the CPU; only plain values and tensors are allowed.

    Raises:
        ValueError: if the file is damaged, or holds something else.
        OSError: if it cannot be read.
    """
    if not path.is_file():  # reading a device might never end
        raise FileNotFoundError(f"`{path}` is not a file")
    content = io.BytesIO(path.read_bytes())
    problem = "its checksums do not hold"
    try:
        if not zipfile.is_zipfile(content) or _is_sound(content):  # old formats have no checksums
            content.seek(0)
            with warnings.catch_warnings():  # about an odd pickle, which is read or refused
                warnings.simplefilter("ignore")
                return torch.load(content, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        problem = f"{type(error).__name__}: {error}"
    raise ValueError(problem)


def _is_sound(content: io.BytesIO) -> bool:
    """Whether every entry of a torch archive matches its CRC-32.

    No entry may be marked as a folder: torch would read nothing from it and return uninitialised
    memory.
    """
    with zipfile.ZipFile(content) as archive:
        is_folder = any(part.external_attr & MARKS_A_FOLDER for part in archive.infolist())
        return archive.testzip() is None and not is_folder


def read_weights(model: nn.Module, path: Path) -> None:
    """Loads the weights in a file into a network.

    Raises:
        InputError: if the file cannot be read, or its weights belong to another network.
    """
    try:
        values = read_tensors(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"weights `{path}`: cannot be read ({error}). Give a file that torch.save made of a "
            "`state_dict`, or a trial's checkpoint"
        ) from error
    is_checkpoint = isinstance(values, dict) and isinstance(values.get("model"), dict)
    found = values["model"] if is_checkpoint else values
    found = _named_as(model, found) if isinstance(found, dict) else {}
    if wrong := _misfits(model.state_dict(), found):
        raise InputError("\n  ".join([f"weights `{path}` are not this network's:", *wrong]))
    model.load_state_dict(found)


def _named_as(model: nn.Module, found: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict with plain names, such as `0.weight`, replaced by those of folded layers."""
    plain = {
        name.replace("parametrizations.", "").removesuffix(".original"): name
        for name in model.state_dict()
        if name.endswith(".original")
    }
    return {plain.get(name, name): value for name, value in found.items()}


def _misfits(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Messages about entries that are missing, have another shape or are not the network's."""
    missing = [f"`{name}` is missing" for name in wanted if name not in found]
    unknown = [f"`{name}` is not in the network" for name in found if name not in wanted]
    shapes = [
        f"`{name}` is {list(found[name].shape)}, should be {list(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    return missing + shapes + unknown
