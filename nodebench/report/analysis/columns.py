"""The columns of frames that several modules read, and what they are called in files.

Settings are columns by their dotted path, metrics and numbers of verdicts by their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import pandas as pd

TRIAL = "trial_id"
CELL = "cell"
OUTCOME = "outcome"
METHOD = "test.method"
BUDGET = "budget"

MISSING = "missing"
"""The outcome of a trial that has no result yet."""

TRIAL_IN_FILES = {"results": "id"}
"""What a table's file calls `TRIAL`; `trial` unless it is named here."""


def as_published(table: str, frame: pd.DataFrame) -> pd.DataFrame:
    """A frame with the columns of the file `<table>.csv`."""
    return frame.rename(columns={TRIAL: TRIAL_IN_FILES.get(table, "trial")})


def read_results(table: Path | TextIO) -> pd.DataFrame:
    """The frame that a report's `results.csv` holds."""
    name = TRIAL_IN_FILES["results"]
    return pd.read_csv(table, dtype={name: str, CELL: str}).rename(columns={name: TRIAL})
