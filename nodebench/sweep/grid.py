"""Expands a sweep file's grid, samples, seeds and exclusions to its trials."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from nodebench.errors import Fault, shown
from nodebench.spec import Trial, TrialSpec
from nodebench.spec.identity import Cell
from nodebench.spec.seed import stream
from nodebench.sweep.file import Range, Search, SweepFile
from nodebench.sweep.partial_cells import agrees, has_values, misnamed
from nodebench.sweep.paths import TOO_DEEP, axis_paths, is_too_deep, with_values
from nodebench.sweep.safe_yaml import Tree
from nodebench.sweep.validation import (
    faults_of_combination,
    faults_of_entry,
    lasting_faults_of,
    spec_or_error,
)

Axis = tuple[tuple[str, ...], list[Any]]

MOST_TRIALS = 1_000_000
MOST_WRONG_CELLS = 1000
"""After this many invalid cells, the rest of a grid is not checked."""

SIGNIFICANT_DIGITS = 4
"""Sampled numbers are rounded to these digits, so that a label can show them."""


class Combination(NamedTuple):
    """Values of the axes and of a search's sample, path -> value, and the cell that they give."""

    values: Mapping[str, Any]
    cell: Cell


class Planned(NamedTuple):
    """A trial of a combination, and whether `exclude` leaves it out."""

    trial: Trial
    is_excluded: bool
    combination: Combination


@dataclass(frozen=True)
class Repeat:
    """A combination that gives the configuration of an earlier one."""

    trial: Trial
    """One of that configuration."""

    idle: tuple[str, ...]
    """The settings in which the two differ, if these have no effect there; otherwise empty."""


@dataclass(frozen=True)
class Expansion:
    """The trials of all combinations, in the order of blocks, axes and seeds.

    The last axis of a block varies fastest. A trial of two combinations appears twice.
    """

    planned: tuple[Planned, ...]
    excluding: frozenset[int]
    """The numbers of the entries of `exclude` that leave out some combination or trial."""

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial that is not excluded, once."""
        kept: dict[str, Trial] = {}
        for planned in self.planned:
            if not planned.is_excluded:
                kept.setdefault(planned.trial.id, planned.trial)
        return tuple(kept.values())

    @property
    def repeats(self) -> tuple[Repeat, ...]:
        """The combinations that give no configuration of their own; excluded ones do not count."""
        combinations = {id(p.combination): p for p in self.planned if not p.is_excluded}
        first: dict[str, Planned] = {}
        found = []
        for planned in combinations.values():
            earlier = first.setdefault(planned.trial.cell.key, planned)
            if earlier is not planned:
                idle = _idle(earlier.trial, earlier.combination.values, planned.combination.values)
                found.append(Repeat(earlier.trial, idle))
        return tuple(found)


def expand(file: SweepFile, faults: list[Fault]) -> Expansion:
    """The trials of a file; faults are appended to `faults`, and their combinations left out."""
    if "seed" in file.base:
        faults.append(Fault("base.seed", "give seeds as `seeds`, a list next to `base`"))
    for number, entry in enumerate(file.exclude):
        faults += misnamed(f"exclude[{number}]", entry)
        faults += faults_of_entry(f"exclude[{number}]", entry)
    planned: list[Planned] = []
    excluding: set[int] = set()
    for combination in _combinations(file, faults, excluding):
        cell = combination.cell
        near = [n for n, entry in enumerate(file.exclude) if agrees(cell.spec, _seedless(entry))]
        for seed in file.seeds:
            trial = cell.trial(seed)
            matching = [n for n in near if agrees(trial.spec, file.exclude[n])]
            excluding.update(matching)
            planned.append(Planned(trial, bool(matching), combination))
    return Expansion(tuple(planned), frozenset(excluding))


def _idle(trial: Trial, one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    """The paths at which two combinations differ, if their trial has no setting at any of them.

    `null` is a way of writing a default, so it does not show that a setting has no effect.
    """
    if one.keys() != other.keys():
        return ()
    differ = tuple(path for path in one if one[path] != other[path])
    is_idle = all(
        None not in (one[path], other[path])
        and not any(f"{known}.".startswith(f"{path}.") for known in trial.settings)
        for path in differ
    )
    return differ if is_idle else ()


def _seedless(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {path: value for path, value in entry.items() if path != "seed"}


def _combinations(
    file: SweepFile, faults: list[Fault], excluding: set[int]
) -> Iterator[Combination]:
    """The combinations of all blocks that resolve to a spec.

    The numbers of the entries of `exclude` that leave out the others are added to `excluding`.
    """
    base = {key: value for key, value in file.base.items() if key != "seed"}
    blocks = [_axes(block, f"grid[{number}]", faults) for number, block in enumerate(file.grid)]
    repeats = {"seeds": len(file.seeds)}
    if file.search:
        repeats["search.samples"] = file.search.samples
    if excess := _excess(blocks, repeats):
        faults.append(Fault("grid", excess))
        return
    samples = _samples(file.search) if file.search else [{}]
    wrong = 0
    for number, axes in enumerate(blocks):
        for cell, drawn in itertools.product(_product(axes), samples):
            values = cell | drawn
            tree = with_values(base, values)
            found = spec_or_error(tree)
            if not isinstance(found, ValidationError):
                yield Combination(values, Cell(found))
                continue
            if numbers := _excluded_as_written(file.exclude, tree, found):
                excluding.update(numbers)
                continue
            faults += faults_of_combination(found, base, values, f"grid[{number}]")
            wrong += 1
            if wrong == MOST_WRONG_CELLS:
                text = f"{wrong} configurations are invalid; the rest was not checked"
                faults.append(Fault("grid", text))
                return


def _excluded_as_written(
    exclude: Sequence[Mapping[str, Any]], tree: Tree, error: ValidationError
) -> list[int]:
    """The numbers of the entries that a tree agrees with, if only its combination is invalid.

    The tree has no spec, so an entry must have the values that the file has.
    """
    if lasting_faults_of(error, TrialSpec, tree):
        return []
    return [number for number, entry in enumerate(exclude) if entry and has_values(tree, entry)]


def _excess(blocks: Sequence[Sequence[Axis]], repeats: Mapping[str, int]) -> str | None:
    """A message that names the largest axes if a sweep has too many trials, otherwise None."""
    times = math.prod(repeats.values())
    sizes = [times * math.prod(len(values) for _, values in axes) for axes in blocks]
    if sum(sizes) <= MOST_TRIALS:
        return None
    largest = sizes.index(max(sizes))
    axes = sorted(blocks[largest], key=lambda axis: -len(axis[1]))[:10]
    factors = [f"{len(values):,} of {shown(', '.join(paths))}" for paths, values in axes]
    factors += [f"{count:,} of `{name}`" for name, count in repeats.items()]
    total = sum(sizes)
    size = f"{total:,}" if total < 10**15 else f"10^{math.log10(total):.0f}"
    return (
        f"gives {size} trials; the maximum is {MOST_TRIALS:,}. The largest block, "
        f"grid[{largest}], has {' x '.join(factors)}"
    )


def _axes(block: Tree, where: str, faults: list[Fault]) -> list[Axis]:
    axes: list[Axis] = []
    taken: set[str] = set()
    for key, values in block.items():
        paths = axis_paths(str(key))
        if "seed" in paths:
            faults.append(Fault(f"{where}.{key}", "give seeds as `seeds`, next to `grid`"))
        faults += [
            Fault(f"{where}.{key}", f"`{path}` is in two axes of this block")
            for path in taken.intersection(paths)
        ]
        faults += [Fault(f"{where}.{key}", TOO_DEEP) for path in paths if is_too_deep(path)]
        if len(set(paths)) < len(paths):
            faults.append(Fault(f"{where}.{key}", "names a field twice"))
        taken.update(paths)
        if any(map(is_too_deep, paths)):
            continue
        if not isinstance(values, list) or not values:
            what = f"an axis must be a list of values, found {shown(values)}"
            faults.append(Fault(f"{where}.{key}", what))
        elif any(
            len(paths) > 1 and (not isinstance(v, list) or len(v) != len(paths)) for v in values
        ):
            faults.append(
                Fault(
                    f"{where}.{key}",
                    f"varies {len(paths)} fields: each value must be a list of {len(paths)}",
                )
            )
        else:
            axes.append((paths, values))
    return axes


def _product(axes: Iterable[Axis]) -> Iterator[dict[str, Any]]:
    """Cells as path -> value."""
    choices = [
        [dict(zip(paths, value if len(paths) > 1 else [value], strict=True)) for value in values]
        for paths, values in axes
    ]
    for parts in itertools.product(*choices):
        yield {path: value for part in parts for path, value in part.items()}


def _samples(search: Search) -> list[dict[str, Any]]:
    """A search's random samples, path -> value; each path has its own random stream."""
    columns = {}
    for path, range_ in search.space.items():
        source = random.Random(stream(search.seed, "search", path))
        columns[path] = [_draw(range_, source) for _ in range(search.samples)]
    return [{path: column[i] for path, column in columns.items()} for i in range(search.samples)]


def _draw(range_: Range, source: random.Random) -> Any:
    if range_.choice is not None:
        return source.choice(range_.choice)
    if range_.integers is not None:
        return source.randint(*range_.integers)
    if range_.log_uniform is not None:
        low, high = map(math.log, range_.log_uniform)
        return _rounded(math.exp(source.uniform(low, high)))
    assert range_.uniform is not None
    return _rounded(source.uniform(*range_.uniform))


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
