"""A run's metrics by name, read from a trial's folder or from a report's tables."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nodebench.errors import TrialOutcome
from nodebench.spec.point import known_point
from nodebench.spec.settings import flatten
from nodebench.spec.solver import Solver
from nodebench.store import TrialFolder
from nodebench.store.rows import INCIDENTAL, Row

UNDER = " under "
"""Separates the name of a metric from the name of the evaluation point that it belongs to."""

TABLES_OF_POINTS = ("evaluations", "batches")
"""The tables of a report that have evaluation points."""


def metrics_of(folder: TrialFolder) -> dict[str, float]:
    """A trial's metrics, including those of its evaluation points that did not fail."""
    result = folder.result()
    assert result is not None
    found = {name: value for name, value in result.summary.items() if name not in INCIDENTAL}
    for row in folder.evaluations():
        if row["outcome"] == TrialOutcome.FINISHED:
            left_out = {*INCIDENTAL, "limit"}
            numbers = {k: v for k, v in row.items() if isinstance(v, float) and k not in left_out}
            found |= {f"{name}{UNDER}{_place(row)}": value for name, value in numbers.items()}
    return found


def points_of(metrics: Iterable[str]) -> list[str]:
    """The names of the evaluation points that some metrics belong to."""
    return list(dict.fromkeys(n.partition(UNDER)[2] for n in metrics if UNDER in n))


def failed_points(folder: TrialFolder) -> dict[str, str]:
    """The names of a trial's failed evaluation points, and their outcomes."""
    rows = folder.evaluations()
    return {_place(r): r["outcome"] for r in rows if r["outcome"] != TrialOutcome.FINISHED}


def table_rows(table: Path) -> Iterator[dict[str, str]]:
    """The rows of a report's table; none if the table does not exist."""
    text = table.read_text(encoding="utf-8") if table.is_file() else ""
    yield from csv.DictReader(io.StringIO(text))


def metrics_in_tables(row: Mapping[str, str], table: Path) -> dict[str, float]:
    """The metrics of a row of `results.csv`, and those of its points, named as by `metrics_of`."""
    found = _numbers(row)
    tables = [table.with_name(f"{name}.csv") for name in TABLES_OF_POINTS]
    for point in itertools.chain(*map(table_rows, tables)):
        is_finished = point.get("outcome") in (None, "", TrialOutcome.FINISHED)
        if point["trial"] == row["id"] and is_finished:
            where = _recorded_place(point)
            found |= {f"{name}{UNDER}{where}": value for name, value in _numbers(point).items()}
    return found


def plain(value: object) -> str:
    """A value as text: numbers without needless digits, as `2` for `2.0`."""
    number = _number(str(value))
    return str(value) if number is None else f"{number:g}"


def _place(row: Row) -> str:
    """The name of an evaluation point in a trial's folder."""
    point = known_point(row)
    asked = (point.gradient, point.at) if point.gradient else ()
    solver = flatten(Solver(**row["solver"]))
    return _under(solver, point.batch_norm, point.test_size, point.batch_size, *asked)


def _recorded_place(row: Mapping[str, str]) -> str:
    """The name of an evaluation point in a report's table."""
    solver = {k.removeprefix("test."): v for k, v in row.items() if k.startswith("test.")}
    size = row.get("batch_size") if "step of" in row else None
    return _under(solver, row["batch_norm"], row["test_size"], size)


def _under(solver: Mapping[str, Any], *rest: object) -> str:
    """The name of a point: its solver and its other settings."""
    words = [str(solver["method"])]
    words += [
        f"{name} {plain(solver[name])}"
        for name in sorted(solver)
        if name != "method" and solver[name] not in (None, "", "None")
    ]
    return " ".join([*words, *(plain(x) for x in rest if x not in (None, "", "running"))])


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    """The columns of a table's row that are numbers."""
    found = {name: _number(text) for name, text in row.items()}
    return {name: value for name, value in found.items() if value is not None}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
