"""The trials of a sweep file, in order, and the mistakes in its grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from nodebench.errors import Fault
from nodebench.spec import Trial
from nodebench.sweep.file import SweepFile
from nodebench.sweep.grid.axes import axes_of, excess, faults_of_axes
from nodebench.sweep.grid.combination import Combination, Misfit, combinations
from nodebench.sweep.grid.misfits import excluding, faults_of_misfits
from nodebench.sweep.partial_cells import agrees, misnamed
from nodebench.sweep.validation import faults_of_entry

MOST_MISFITS = 1000
"""After this many invalid combinations, the rest of a grid is not checked."""


class Planned(NamedTuple):
    """A trial of a combination, and the numbers of the entries of `exclude` that leave it out."""

    trial: Trial
    excluded_by: tuple[int, ...]
    combination: Combination

    @property
    def is_excluded(self) -> bool:
        """Whether some entry leaves it out."""
        return bool(self.excluded_by)


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

    faults: tuple[Fault, ...]

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


def expand(file: SweepFile) -> Expansion:
    """The trials of a file, and its faults; combinations that are invalid have no trials."""
    faults = list(_faults_around(file))
    repeats = {"seeds": len(file.seeds)}
    if file.search:
        repeats["search.samples"] = file.search.samples
    if text := excess([axes_of(block) for block in file.grid], repeats):
        return Expansion((), frozenset(), (*faults, Fault("grid", text)))
    planned: list[Planned] = []
    used: set[int] = set()
    misfits: list[Misfit] = []
    for combination in combinations(file):
        if isinstance(combination, Combination):
            planned += _planned(combination, file)
        elif numbers := excluding(combination, file.exclude):
            used.update(numbers)
        else:
            misfits.append(combination)
            if len(misfits) == MOST_MISFITS:
                what = f"{MOST_MISFITS} configurations are invalid; the rest was not checked"
                faults.append(Fault("grid", what))
                break
    faults += faults_of_misfits(misfits, file)
    used.update(number for each in planned for number in each.excluded_by)
    return Expansion(tuple(planned), frozenset(used), tuple(faults))


def _faults_around(file: SweepFile) -> Iterator[Fault]:
    """The mistakes that do not depend on how the grid's values are combined."""
    if "seed" in file.base:
        yield Fault("base.seed", "give seeds as `seeds`, a list next to `base`")
    for number, entry in enumerate(file.exclude):
        yield from misnamed(f"exclude[{number}]", entry)
        yield from faults_of_entry(f"exclude[{number}]", entry)
    for number, block in enumerate(file.grid):
        yield from faults_of_axes(f"grid[{number}]", block)


def _planned(combination: Combination, file: SweepFile) -> Iterator[Planned]:
    """A combination's trials, one for each seed."""
    cell = combination.cell
    near = [n for n, entry in enumerate(file.exclude) if agrees(cell.spec, _seedless(entry))]
    for seed in file.seeds:
        trial = cell.trial(seed)
        matching = tuple(n for n in near if agrees(trial.spec, file.exclude[n]))
        yield Planned(trial, matching, combination)


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
