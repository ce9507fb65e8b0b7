"""Turns a sweep file into an ordered list of trials, purely and deterministically."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nodebench.errors import Fault, SweepError
from nodebench.spec import Trial
from nodebench.spec.identity import canonical
from nodebench.sweep.compose import read, with_lines
from nodebench.sweep.consistency import conditions_without_effect, inconsistencies
from nodebench.sweep.file import Made, SizeName, SweepFile
from nodebench.sweep.grid.expansion import expand
from nodebench.sweep.safe_yaml import Tree, dump
from nodebench.sweep.sweep import Origin, Sweep
from nodebench.sweep.validation import mistakes_of

MAKE_CELLS = ("base", "grid", "seeds", "exclude", "search")
"""The fields of a sweep file on which its cells depend: seeds, since exclusions may name them."""


def load(path: Path, overrides: Sequence[str] = (), size: SizeName = "full") -> Sweep:
    """Reads a sweep file in one of its sizes and expands it.

    Raises:
        SweepError: with every mistake found, by YAML path.
    """
    faults: list[Fault] = []
    tree = read(path, overrides, size, faults)
    if any(fault.where == "include" for fault in faults):  # its fields would be called missing
        raise SweepError(str(path), with_lines(faults, path, tree, size), overrides)
    file = _validated(tree, faults)
    expansion = expand(file)
    trials = expansion.trials
    faults += expansion.faults
    faults += inconsistencies(file, expansion)
    if not (trials or faults):
        faults.append(Fault("exclude", "excludes every trial"))
    is_as_written = file.made.size == "full" and not file.made.changed
    if not faults and is_as_written:  # otherwise the trials that an entry refers to may be absent
        faults += conditions_without_effect(file, expansion)
    if faults:
        raise SweepError(str(path), with_lines(faults, path, tree, size), overrides)
    made = _made(file, trials, path, size)
    if made != file.made:
        tree["made"] = made.model_dump(exclude_defaults=True)
        file = file.model_copy(update={"made": made})
    origin = Origin(str(path.resolve()), size, tuple(filter(_names_it, overrides)))
    return Sweep(file, trials, dump(tree, width=100), origin, expansion.repeats)


def load_origin(origin: Origin) -> Sweep:
    """Loads the sweep at an origin again, as its file is now.

    Raises:
        SweepError: with every mistake in it.
    """
    return load(Path(origin.file), origin.renamed, origin.size)


def _names_it(override: str) -> bool:
    return override.partition("=")[0].strip() == "name"


def _made(file: SweepFile, trials: Sequence[Trial], path: Path, size: SizeName) -> Made:
    """The file's `made`, with the differences from the trials without `--set` and in full size."""
    found: dict[str, Any] = {}
    if file.made.changed and not file.made.has_other_cells:
        found["has_other_cells"] = _has_other_cells(file, trials, _as_written(path, size))
    if size != "full":
        found["instead"] = _instead(trials, _trials(_as_written(path, "full")))
    return file.made.model_copy(update=found)


def _has_other_cells(file: SweepFile, trials: Sequence[Trial], written: SweepFile) -> bool:
    """Whether some trial belongs to a cell that the file, as it is written, does not have.

    The file is expanded only if `--set` changed a field on which cells depend.
    """
    if all(getattr(file, name) == getattr(written, name) for name in MAKE_CELLS):
        return False
    return not {trial.cell.key for trial in trials} <= {t.cell.key for t in _trials(written)}


def _as_written(path: Path, size: SizeName) -> SweepFile:
    """A file in one of its sizes, without `--set`; invalid fields are left out."""
    ignored: list[Fault] = []
    return _validated(read(path, (), size, ignored), ignored)


def _trials(file: SweepFile) -> tuple[Trial, ...]:
    """The trials of a file; cells that resolve to no trial are left out."""
    return expand(file).trials


def _instead(trials: Sequence[Trial], full: Sequence[Trial]) -> dict[str, list[Any]]:
    """Settings with a value that no trial has at full size -> their values at full size."""
    there = _values(full)
    return {
        path: list(there.get(path, {}).values())
        for path, values in _values(trials).items()
        if not values.keys() <= there.get(path, {}).keys()
    }


def _values(trials: Sequence[Trial]) -> dict[str, dict[str, Any]]:
    """The values of every setting, each by its canonical text."""
    values: dict[str, dict[str, Any]] = {}
    for cell in dict.fromkeys(trial.cell for trial in trials):
        for path, value in cell.settings.items():
            values.setdefault(path, {})[canonical(value)] = value
    return values


def _validated(tree: Tree, faults: list[Fault]) -> SweepFile:
    """The file's top level; faults there are noted and left out, to find faults below it too."""
    try:
        return SweepFile.model_validate(tree)
    except ValidationError as error:
        wrong = mistakes_of(error, SweepFile, tree)
        faults += [Fault(each.where or "(file)", each.message) for each in wrong]
        bad = {str(each.path[0]) for each in wrong if each.path} | {"name"}
        rest = {key: value for key, value in tree.items() if key not in bad}
        return SweepFile.model_validate(rest | {"name": "unnamed"})
