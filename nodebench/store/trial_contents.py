"""Checks the contents of trial files that are imported from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nodebench.errors import StoreError, shown
from nodebench.spec.point import known_point
from nodebench.spec.solver import Solver
from nodebench.store.result import Result
from nodebench.store.rows import machine_of
from nodebench.store.trial_folder import TrialFolder

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, which can affect a terminal, and surrogates, which are not characters."""


def require_contents(folder: TrialFolder) -> None:
    """Rejects a trial whose files could not be read, or would mislead a reader.

    Raises:
        StoreError: if a file is missing, damaged or of another kind; the message names it.
    """
    for name, check in CHECKED_FILES.items():
        path = folder.path / name
        if not path.exists():
            if path in (folder.spec_file, folder.result_file):
                raise StoreError(f"`{name}` is missing")
            continue
        try:
            for value in _values(path):
                _require_plain(value)
                check(value)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise StoreError(f"`{name}` is damaged ({_reason(error)})") from error


def _of_each(check: Callable[[Any], object]) -> Callable[[Any], object]:
    """A check of a list, from the check of its values."""
    return lambda rows: [check(row) for row in list(rows)]


RESULT = TypeAdapter(Result)


def _require_result(row: dict[str, Any]) -> None:
    Result(**row)  # rejects other fields
    RESULT.validate_json(json.dumps(row), strict=True)


def _require_spec(record: dict[str, Any]) -> None:
    if not {"id", "spec"} <= record.keys():
        raise ValueError("it has no `id` or no `spec`")


def _require_point(row: dict[str, Any]) -> None:
    known_point(row)
    Solver(**row["solver"])
    if not isinstance(row["outcome"], str):
        raise TypeError("an outcome is a word")


CHECKED_FILES: dict[str, Callable[[Any], object]] = {
    TrialFolder.spec_file.name: _require_spec,
    TrialFolder.history_file.name: lambda row: row["epoch"] + 0,
    TrialFolder.evaluations_file.name: _of_each(_require_point),
    TrialFolder.trajectories_file.name: lambda rows: [row.items() for row in rows],
    TrialFolder.timings_file.name: lambda rows: [(machine_of(r), r["time"] + 0.0) for r in rows],
    TrialFolder.result_file.name: _require_result,
    TrialFolder.elsewhere_file.name: _of_each(_require_result),
}
"""A trial's files -> a check that fails for a value that such a file cannot contain."""


def _values(path: Path) -> Iterator[Any]:
    """The JSON values of a file: one, or one per line."""
    text = path.read_text(encoding="utf-8")
    for part in text.splitlines() if path.suffix == ".jsonl" else [text]:
        yield json.loads(part)


def _require_plain(value: Any) -> None:
    """Rejects texts with characters that can affect a terminal."""
    if isinstance(value, str) and CONTROL.search(value):
        raise ValueError(f"{shown(ascii(value))} has a control character")
    for inner in (*value, *value.values()) if isinstance(value, dict) else _items(value):
        _require_plain(inner)


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
