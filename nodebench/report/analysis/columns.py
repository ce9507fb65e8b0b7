"""The columns of frames that several modules read, and their names in files.

Settings are named by their dotted paths, metrics and numbers of verdicts by their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import pandas as pd

from nodebench.errors import InputError
from nodebench.files import write
from nodebench.sweep import Sweep

TRIAL = "trial_id"
CELL = "cell"
OUTCOME = "outcome"
METHOD = "test.method"
BUDGET = "budget"
TIMED_SECONDS = "timed_epoch_s"

MISSING = "missing"
"""The outcome of a trial that has no result yet."""

COUNTS = frozenset(
    {"epochs", "iteration", "best_epoch", "parameters", "environments", "threads", "packed",
     "sufficient_steps", "rounds", "steps", "test.steps", "samples", "test_size", "batch_size",
     "lost", "gained",
     "peak_memory_bytes", "step_memory_bytes"}
)  # fmt: skip
"""The columns, apart from settings, whose values are whole numbers."""

TRIAL_IN_FILES = {"results": "id"}
"""A table -> the name of `TRIAL` in its file; `trial` in all other files."""


def as_published(table: str, frame: pd.DataFrame) -> pd.DataFrame:
    """A frame with the columns of the file `<table>.csv`."""
    return frame.rename(columns={TRIAL: TRIAL_IN_FILES.get(table, "trial")})


def with_whole_numbers(frame: pd.DataFrame, sweep: Sweep) -> pd.DataFrame:
    """A frame whose counts and whole settings are integers in files, even where some are missing.

    Pandas makes floats of them, which would be written as `3.0`.
    """
    settings = [item for trial in sweep.trials for item in trial.settings.items()]
    others = {path for path, value in settings if type(value) is not int}
    whole = COUNTS | ({path for path, _ in settings} - others)
    floats = frame.select_dtypes("float").columns
    return frame.astype({name: "Int64" for name in floats if name in whole})


def write_table(name: str, frame: pd.DataFrame, folder: Path) -> None:
    """Writes a frame to a report's `<name>.csv`; if the frame is empty, removes the file."""
    file = folder / f"{name}.csv"
    if frame.empty:
        file.unlink(missing_ok=True)
    else:
        write(file, as_published(name, frame).to_csv(index=False))


def read_results(table: Path | TextIO) -> pd.DataFrame:
    """The frame that a report's `results.csv` holds.

    Raises:
        InputError: if it is not such a table.
    """
    name = TRIAL_IN_FILES["results"]
    try:
        frame = pd.read_csv(table, dtype={name: str, CELL: str}).rename(columns={name: TRIAL})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(_not_a_table(table, str(error).strip())) from error
    if lacking := [column for column in (TRIAL, CELL, "seed", OUTCOME) if column not in frame]:
        names = ", ".join(f"`{TRIAL_IN_FILES['results'] if c == TRIAL else c}`" for c in lacking)
        raise InputError(_not_a_table(table, f"it has no column {names}"))
    return frame


def _not_a_table(table: Path | TextIO, why: str) -> str:
    name = f"`{table}`" if isinstance(table, Path) else "the table in git"
    return f"{name} is damaged, or no report's table: {why}. Write the report again"
