"""The columns of frames that several modules read, and their names in files.

Settings are named by their dotted paths, metrics and numbers of verdicts by their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import pandas as pd

from nodebench.files import write

TRIAL = "trial_id"
CELL = "cell"
OUTCOME = "outcome"
METHOD = "test.method"
BUDGET = "budget"
TIMED_SECONDS = "timed_epoch_s"

MISSING = "missing"
"""The outcome of a trial that has no result yet."""

TRIAL_IN_FILES = {"results": "id"}
"""A table -> the name of `TRIAL` in its file; `trial` in all other files."""


def as_published(table: str, frame: pd.DataFrame) -> pd.DataFrame:
    """A frame with the columns of the file `<table>.csv`."""
    return frame.rename(columns={TRIAL: TRIAL_IN_FILES.get(table, "trial")})


def write_table(name: str, frame: pd.DataFrame, folder: Path) -> None:
    """Writes a frame to a report's `<name>.csv`; if the frame is empty, removes the file."""
    file = folder / f"{name}.csv"
    if frame.empty:
        file.unlink(missing_ok=True)
    else:
        write(file, as_published(name, frame).to_csv(index=False))


def read_results(table: Path | TextIO) -> pd.DataFrame:
    """The frame that a report's `results.csv` holds."""
    name = TRIAL_IN_FILES["results"]
    return pd.read_csv(table, dtype={name: str, CELL: str}).rename(columns={name: TRIAL})
