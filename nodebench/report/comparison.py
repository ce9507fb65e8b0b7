"""One sweep's results compared with another's: two sweeps, or two commits of one."""

from __future__ import annotations

import io
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from nodebench.errors import InputError, SweepError, TrialOutcome
from nodebench.planning.lookup import SweepSource, load_sweep
from nodebench.report.analysis.baseline import TestedDifference, compared_cells
from nodebench.report.analysis.columns import CELL, OUTCOME, read_results
from nodebench.report.analysis.findings import all_results
from nodebench.report.analysis.formatting import (
    NO_VALUE,
    measured,
    probability,
    signed_and_interval,
    unit,
)
from nodebench.report.analysis.statistics import column
from nodebench.report.tables import three_digits
from nodebench.store import Store
from nodebench.sweep import Sweep
from nodebench.sweep.partial_cells import SPEC_ORDER

TABLE = "results.csv"

NEVER_SET_ASIDE = "data.name"
"""The setting whose values never match: a metric on other data does not compare."""

SECONDS_NOTE = (
    "‡ Ratio of the seconds measured during training (to / from): other trials or another "
    "machine may have affected it."
)


@dataclass(frozen=True)
class Side:
    """One side of a comparison: its name, and its table of `frames.result_frame`."""

    name: str
    results: pd.DataFrame
    sweep: Sweep | None = None
    """The sweep, unless the results are a report's."""


def read_sides(reference: SweepSource, other: SweepSource, store: Store) -> tuple[Side, Side]:
    """Both sides of a comparison, read by `read_side`; sweeps of one name get distinct names.

    Raises:
        InputError: as in `read_side`.
    """
    sides = read_side(reference, store), read_side(other, store)
    first, second = (side.sweep for side in sides)
    if first is None or second is None or first.name != second.name:
        return sides
    pairs = zip(_origins(first), _origins(second), strict=True)
    apart = zip(*(pair for pair in pairs if pair[0] != pair[1]), strict=True)
    texts = [", ".join(filter(None, words)) for words in apart] or ["", ""]
    one, two = (
        replace(side, name=f"{side.name} ({text})" if text else side.name)
        for side, text in zip(sides, texts, strict=True)
    )
    return one, two


def _origins(sweep: Sweep) -> tuple[str, str, str]:
    """What distinguishes sweeps of one name: the file, the size and the changes."""
    file, here = Path(sweep.origin.file), Path.cwd()
    shown = file.relative_to(here) if file.is_relative_to(here) else file
    changes = " ".join(f"--set {change}" for change in sweep.made.changed)
    return str(shown), sweep.made.size, changes


def read_side(source: SweepSource, store: Store) -> Side:
    """The results of a sweep, or of what a `source` names.

    For a sweep (itself, its file, or a name in sweeps/), they come from the store; for a report's
    folder, from its `results.csv`. `COMMIT:FOLDER` is such a folder in a commit of git.

    Raises:
        InputError: if `source` is none of these.
    """
    if isinstance(source, Sweep):
        return Side(source.name, all_results(source, store), source)
    source = str(source)
    if (table := Path(source) / TABLE).is_file():
        return Side(source, read_results(table))
    if Path(source).is_dir():
        raise InputError(f"`{source}` has no `{TABLE}`: write its report again, or name a sweep")
    commit, colon, folder = source.partition(":")
    if colon and not Path(source).exists():
        return Side(source, _of_commit(commit, folder))
    try:
        return read_side(load_sweep(source, store=store), store)
    except SweepError as error:
        raise InputError(
            f"`{source}` is neither a sweep, nor a report's folder with a `{TABLE}`, nor "
            f"`COMMIT:FOLDER`: {error}"
        ) from error


def _of_commit(commit: str, folder: str) -> pd.DataFrame:
    # Without `./`, git would look from the repository's root.
    command = ["git", "show", f"{commit}:./{folder.rstrip('/')}/{TABLE}"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    except OSError as error:
        raise InputError(f"`{commit}:{folder}`: git cannot be run: {error}") from error
    if done.returncode:
        raise InputError(f"`{commit}:{folder}`: {done.stderr.strip() or 'git has no such table'}")
    return read_results(io.StringIO(done.stdout))


def comparison(reference: Side, other: Side) -> str:
    """How `other` differs from `reference`, cell by cell, as Markdown.

    Two cells are compared if they have the same data set and agree in all settings that vary within
    a table. A setting with one value in each table, such as the epochs of a shorter and a longer
    training, is named as a difference of the two. Differences are paired by seed.

    Raises:
        InputError: if no cell is in both tables.
    """
    metric = _headline(reference, other)
    cells = _cells(reference.results, other.results)
    both = {key: sides for key, sides in cells.items() if all(len(side) for side in sides)}
    if not both:
        raise InputError(
            f"`{reference.name}` and `{other.name}` have no configuration in common: "
            f"{_settings_apart(reference.results, other.results)}"
        )
    named = {str(sides[1][CELL].iloc[0]): sides for sides in both.values()}
    pairs = {
        cell: (_by_seed(before, metric), _by_seed(after, metric))
        for cell, (before, after) in named.items()
    }
    found = compared_cells(pairs, higher_is_better=_higher_is_better(metric))
    rows = [
        {
            "configuration": cell,
            **_means(metric, pairs[cell]),
            **_difference_columns(found.get(cell), metric),
            "NFE": _evaluations(*_of_common_seeds(*(_by_seed(s, "nfe_forward") for s in sides))),
            "s/epoch ‡": _seconds_ratio(*sides),
        }
        for cell, sides in named.items()
    ]
    what = _metric_name(metric)
    what = f"Test {what}{unit(what)}, from `{reference.name}` to `{other.name}`."
    lines = [f"# {other.name} compared with {reference.name}", f"{what} {SECONDS_NOTE}"]
    lines += _set_aside(reference, other)
    shown = pd.DataFrame(rows)
    if (shown["NFE"] == NO_VALUE).all():
        shown = shown.drop(columns="NFE")
    table: str = shown.to_markdown(index=False, disable_numparse=True)
    missing = [
        _cells_of_one_side(cells, side, name)
        for side, name in ((0, reference.name), (1, other.name))
    ]
    return "\n\n".join([*lines, table, *(text for text in missing if text)])


def _of_common_seeds(*pair: pd.Series[float]) -> list[pd.Series[float]]:
    """Both sides' values of the seeds that both have, or else of each side's own."""
    ours, theirs = pair
    common = ours.index.intersection(theirs.index)
    return [side.loc[common] if len(common) else side for side in pair]


def _means(metric: str, pair: tuple[pd.Series[float], ...]) -> dict[str, str]:
    """The means of both sides over the seeds that both have, or else over each side's own."""
    ours, theirs = pair
    common = ours.index.intersection(theirs.index)
    values = _of_common_seeds(*pair)
    seeds = str(len(common))
    if len(ours) != len(theirs) or len(common) != len(ours):
        seeds += f" (of {len(ours)} and {len(theirs)})"
    name = _metric_name(metric)
    return {
        "from": measured(name, values[0]),
        "to": measured(name, values[1]),
        "common seeds": seeds,
    }


def _headline(*sides: Side) -> str:
    for metric in ("test_accuracy", "test_error"):
        if all(metric in side.results for side in sides):
            return metric
    raise InputError("one of the two has no finished trial, or their metrics differ")


def _metric_name(metric: str) -> str:
    return metric.removeprefix("test_")


def _higher_is_better(metric: str) -> bool:
    return metric.endswith("accuracy")


Cells = dict[tuple[str, ...], tuple[pd.DataFrame, pd.DataFrame]]


def _cells(*tables: pd.DataFrame) -> Cells:
    """The rows of each cell in both tables, by the data set and the settings that vary in one."""
    groups = []
    for table in tables:
        settings = table.reindex(columns=_telling(*tables)).to_numpy(dtype=object)
        keys = [tuple(map(_setting_text, row)) for row in settings]
        groups.append({key: table[[k == key for k in keys]] for key in dict.fromkeys(keys)})
    every = dict.fromkeys([*groups[1], *groups[0]])
    return {k: (groups[0].get(k, tables[0][:0]), groups[1].get(k, tables[1][:0])) for k in every}


def _telling(*tables: pd.DataFrame) -> list[str]:
    """The settings by which cells are matched: the data set, and those that vary in a table."""
    return [
        path
        for path in dict.fromkeys(path for table in tables for path in _settings(table))
        if path == NEVER_SET_ASIDE or any(_is_varying(table, path) for table in tables)
    ]


def _is_varying(table: pd.DataFrame, path: str) -> bool:
    """Whether a setting has several values in a table, one of which may be that it is missing."""
    return path in table and table[path].nunique(dropna=False) > 1


def _set_aside(*sides: Side) -> list[str]:
    """The settings with one value on each side, which do not prevent a match.

    Lists those that differ.
    """
    ours, theirs = (_constants(side.results) for side in sides)
    apart = [
        f"`{path}` ({value} to {theirs[path]})"
        for path, value in ours.items()
        if theirs.get(path, value) != value
    ]
    lines = [f"All configurations also differ in {', '.join(apart)}."] if apart else []
    for side, values, other in ((sides[0], ours, sides[1]), (sides[1], theirs, sides[0])):
        alone = [
            f"`{path}` ({value})"
            for path, value in values.items()
            if path not in other.results or other.results[path].isna().all()
        ]
        if alone:
            lines.append(f"Only `{side.name}` records {', '.join(alone)}.")
    return lines


def _constants(table: pd.DataFrame) -> dict[str, str]:
    """The settings that have one value in a table, in the order of a spec."""
    paths = sorted(_settings(table), key=SPEC_ORDER.__getitem__)
    texts = {p: _setting_text(table[p].iloc[0]) for p in paths if not _is_varying(table, p)}
    return {path: text for path, text in texts.items() if text}


def _settings(table: pd.DataFrame) -> list[str]:
    """The columns that are settings, except the seed."""
    return [str(name) for name in table if name in SPEC_ORDER and name != "seed"]


def _settings_apart(*tables: pd.DataFrame) -> str:
    """Why no cells match: `solver.steps` is 2 in one, 4 in the other."""
    apart = []
    for path in _telling(*tables):
        ours, theirs = (_values(table, path) for table in tables)
        if not ours & theirs:
            one, other = (", ".join(sorted(v or NO_VALUE for v in each)) for each in (ours, theirs))
            apart.append(f"`{path}` is {one} in one, {other} in the other")
    return "; ".join(apart) or "their settings are combined differently"


def _values(table: pd.DataFrame, path: str) -> set[str]:
    """The texts of a setting's values in a table; the empty one if it is missing."""
    return {_setting_text(value) for value in table[path]} if path in table else {""}


def _setting_text(value: object) -> str:
    """A setting as text that survives CSV: `4` for 4, 4.0 and "4"; empty if it is missing."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value)
    try:
        return repr(float(str(value))).removesuffix(".0")
    except ValueError:
        return str(value)


def _by_seed(rows: pd.DataFrame, metric: str) -> pd.Series[float]:
    done = rows[rows[OUTCOME] == TrialOutcome.FINISHED].set_index("seed")
    return pd.to_numeric(column(done, metric), errors="coerce").dropna()


def _difference_columns(found: TestedDifference | None, metric: str) -> dict[str, str]:
    if found is None:
        return {"difference": NO_VALUE, "p (Holm)": NO_VALUE, "reading": "no seed in common"}
    what, difference = _metric_name(metric), found.difference
    return {
        "difference": signed_and_interval(what, difference.mean, difference.shown_half_width),
        "p (Holm)": probability(found.p),
        "reading": str(found.reading),
    }


def _evaluations(*sides: pd.Series[float]) -> str:
    """The mean evaluations per forward pass on each side: `8`, or `19.9 to 26.3`."""
    texts = [NO_VALUE if side.empty else three_digits(side.mean()) for side in sides]
    return " to ".join(dict.fromkeys(texts))


def _seconds_ratio(*sides: pd.DataFrame) -> str:
    """The ratio of the seconds per epoch to the reference's."""
    before, after = (side.get("epoch_s", pd.Series(dtype=float)).median() for side in sides)
    return f"× {after / before:.2f}" if before > 0 and after > 0 else NO_VALUE


def _cells_of_one_side(cells: Cells, side: int, name: str) -> str:
    alone = [str(sides[side][CELL].iloc[0]) for sides in cells.values() if not len(sides[1 - side])]
    return f"Only in {name}: {', '.join(alone)}." if alone else ""
