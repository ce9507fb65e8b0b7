"""AG News as character codes, parsed once and cached next to the CSV files."""

from __future__ import annotations

import contextlib
import io
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from nodebench.data.dataset import Split
from nodebench.data.files import FILES, checksums_of
from nodebench.data.subset import Whole
from nodebench.errors import DataError
from nodebench.files import require_writable, write
from nodebench.spec.data import TEXT_LENGTH, Text

# A character's code is its position, from 1. ’ ˆ ˜ ‘ are typographic, as in saparina/neural-ode.
CHARACTERS = 'abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:’"/|_#$%ˆ&*˜‘+=<>()[]{} '
PADDING_CODE, UNKNOWN = 0, len(CHARACTERS) + 1
SYMBOLS = UNKNOWN + 1
CLASS_NAMES = ("World", "Sports", "Business", "Sci/Tech")

ENCODING = 1
"""The version in the names of cached code files. Increment it whenever `encode` changes."""

ROWS = 4096
"""Texts encoded at a time, so that intermediate arrays stay in the processor's cache."""


def agnews(settings: Text, root: Path) -> Whole:
    """AG News: inputs [n, length] uint8, the codes of the description's first characters.

    Source: Zhang, Zhao, LeCun 2015; the title is left out, as in saparina/neural-ode.
    """
    checksums = checksums_of(settings)
    folder = root / FILES[settings.name].folder
    train, test = (
        Split(part.inputs[:, : settings.length], part.targets)
        for part in _splits(folder, checksums["train.csv"], checksums["test.csv"])
    )
    return Whole(train, test, CLASS_NAMES, symbols=SYMBOLS)


@lru_cache(maxsize=1)
def _splits(folder: Path, train: str, test: str) -> tuple[Split, Split]:
    return _split(folder / "train.csv", train), _split(folder / "test.csv", test)


def _split(file: Path, checksum: str) -> Split:
    """The encoded CSV file with this MD5, from the cache next to it if there is one."""
    kept = file.with_name(f"{file.stem}-{checksum}-codes{ENCODING}.npz")
    unreadable = OSError, ValueError, KeyError, EOFError, BadZipFile
    with contextlib.suppress(*unreadable), kept.open("rb") as source, np.load(source) as found:
        return Split(torch.from_numpy(found["codes"]), torch.from_numpy(found["targets"]))
    texts, targets = read_csv(file)
    codes = encode(texts)

    arrays = io.BytesIO()
    np.savez(arrays, codes=codes, targets=targets)
    # The folder may be read-only: then every process encodes the file, in a second or two.
    with contextlib.suppress(OSError):
        require_writable(file.parent)
        write(kept, arrays.getvalue())
    return Split(torch.from_numpy(codes), torch.from_numpy(targets))


def read_csv(file: Path) -> tuple[list[str], NDArray[np.int64]]:
    """The descriptions [n] and the classes [n], from 0, in rows of class, title, description.

    Raises:
        DataError: if the file has other columns or classes.
    """
    import pandas as pd

    try:
        table = pd.read_csv(
            file,
            header=None,
            usecols=[0, 2],
            dtype={0: np.int64, 2: str},
            keep_default_na=False,
            encoding="utf-8",
        )
    except ValueError as error:  # includes pandas' own errors and decoding errors
        raise DataError(f"`{file}` has no rows of class, title, description: {error}") from error
    targets = table[0].to_numpy() - 1
    if not np.isin(targets, np.arange(len(CLASS_NAMES))).all():
        raise DataError(f"`{file}` has classes other than 1 to {len(CLASS_NAMES)}")
    return table[2].tolist(), targets


def encode(texts: list[str]) -> NDArray[np.uint8]:
    """The codes [n, 1014] of lower-cased texts, cut or padded with 0; 68 is any other character."""
    codes = np.full((len(texts), TEXT_LENGTH), PADDING_CODE, np.uint8)
    places = np.arange(TEXT_LENGTH)
    for start in range(0, len(texts), ROWS):
        # Lower-cased before cutting, which may make a text longer: İ becomes two characters.
        lowered = [text.lower()[:TEXT_LENGTH] for text in texts[start : start + ROWS]]
        lengths = np.fromiter(map(len, lowered), np.int64, len(lowered))
        points = np.frombuffer("".join(lowered).encode("utf-32-le"), "<u4")
        known = _TABLE[np.minimum(points, len(_TABLE) - 1)]
        codes[start : start + ROWS][places < lengths[:, None]] = known
    return codes


def _table() -> NDArray[np.uint8]:
    """Unicode code point -> code; the last entry stands for all later code points."""
    points = [ord(character) for character in CHARACTERS]
    table = np.full(max(points) + 2, UNKNOWN, np.uint8)
    table[points] = np.arange(1, len(points) + 1)
    return table


_TABLE = _table()
