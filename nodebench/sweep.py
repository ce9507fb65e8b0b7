"""From a sweep file to an ordered list of trials, purely and deterministically."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from nodebench.draws import draws
from nodebench.errors import Fault, SweepError, shown, unknown
from nodebench.faults import dotted, faults_of
from nodebench.identity import Cell, Trial, canonical
from nodebench.part import field_paths
from nodebench.reading import TOO_DEEP, axis_paths, is_too_deep, read, set_path
from nodebench.spec import TrialSpec
from nodebench.sweepfile import Evaluate, Limits, Resources, Search, SweepFile
from nodebench.tree import Tree

Axis = tuple[tuple[str, ...], list[Any]]

MOST_TRIALS = 1_000_000
MOST_WRONG_CELLS = 1000
"""After so many, the rest of a grid is not looked at."""


@dataclass(frozen=True)
class Sweep:
    """A sweep file, expanded."""

    name: str
    about: str
    trials: tuple[Trial, ...]
    evaluate: tuple[Evaluate, ...]
    resources: Resources
    limits: Limits
    margin: float
    checkpoint_minutes: float
    search: Search | None
    is_changed: bool
    """Whether `--set` made it another sweep than its file's."""
    text: str
    """The resolved sweep file as YAML: what `repro` needs, and nothing of this machine."""

    @cached_property
    def varying(self) -> list[str]:
        """The settings, the seed aside, that tell the cells of the sweep apart."""
        cells = list({cell.key: cell.settings for cell in self._cells}.values())
        paths = sorted({path for cell in cells for path in cell}, key=_SPEC_ORDER.__getitem__)
        paths = _without_twins(paths, cells)
        values = {path: [canonical(cell[path]) for cell in cells if path in cell] for path in paths}
        telling = [path for path in paths if len(set(values[path])) > 1]
        told = {tuple(canonical(cell.get(path)) for path in telling) for cell in cells}
        if len(told) < len(cells):
            # Some cells differ only in that a setting is absent, as steps from step_size.
            return [p for p in paths if p in telling or len(values[p]) < len(cells)]
        return telling

    def heading(self, path: str) -> str:
        """What a table calls a setting: its whole group, where all settings in it agree."""
        group = path.rpartition(".")[0]
        agree = group.count(".") > 0 and all(
            value == cell.settings.get(path)
            for cell in self._cells
            for other, value in cell.settings.items()
            if other.rpartition(".")[0] == group
        )
        return group if agree else path

    def label(self, trial: Trial) -> str:
        """What distinguishes a trial within its sweep: `odenet euler 10 · s0`."""
        return f"{self.cell_label(trial)} · s{trial.spec.seed}"

    def cell_label(self, trial: Trial) -> str:
        """The same without the seed: `odenet euler 10`."""
        settings = trial.cell.settings
        words = [str(settings[path]) for path in self.varying if path in settings]
        # A name of two lines would look like two trials.
        return " ".join(" ".join(words).split()) or str(settings["model.name"])

    @cached_property
    def _cells(self) -> list[Cell]:
        return list(dict.fromkeys(trial.cell for trial in self.trials))


def _without_twins(paths: list[str], cells: list[dict[str, Any]]) -> list[str]:
    """Leaves out a path that says nothing beside another of its group.

    That is one whose value is its neighbour's, as norms that are all alike, or follows from the
    group's name, as the right-hand side that each of two models has.
    """

    def is_twin(path: str, other: str) -> bool:
        if path.rpartition(".")[0] != other.rpartition(".")[0]:
            return False
        if all(path not in cell or cell.get(other) == cell[path] for cell in cells):
            return True
        if not other.endswith(".name"):
            return False
        pairs = {(canonical(cell.get(other)), canonical(cell.get(path))) for cell in cells}
        return len(pairs) == len({name for name, _ in pairs})

    kept: list[str] = []
    for path in paths:
        if not any(is_twin(path, other) for other in kept):
            kept.append(path)
    return kept


_SPEC_ORDER = {path: i for i, path in enumerate(dict.fromkeys(field_paths(TrialSpec)))}


def load(path: Path, overrides: Sequence[str] = (), small: bool = False) -> Sweep:
    """Reads a sweep file and expands it.

    Raises:
        SweepError: with every mistake found, by YAML path.
    """
    faults: list[Fault] = []
    tree = read(path, overrides, small, faults)
    file = _validated(tree, faults)
    expanded = list(_expand(file, faults))
    trials = _kept(expanded)
    if file.search:
        faults += _not_searchable(file.search, file.grid, trials)
    for number, block in enumerate(file.evaluate):
        check_cell(f"evaluate[{number}].when", block.when, faults)
    if not (trials or faults):
        faults.append(Fault("exclude", "leaves no trial"))
    if not (faults or overrides or small):  # which may take away the trials that an entry is about
        used = {number for _, numbers in expanded for number in numbers}
        faults += _without_effect(file, trials, used)
    if faults:
        raise SweepError(str(path), faults)
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)
    return Sweep(
        file.name,
        file.about,
        trials,
        file.evaluate,
        file.resources,
        file.limits,
        file.margin,
        file.checkpoint_minutes,
        file.search,
        bool(overrides),
        text,
    )


def _not_searchable(
    search: Search, grid: Sequence[Tree], trials: Sequence[Trial]
) -> Iterator[Fault]:
    """Tuning on the data that a result is reported of would flatter it."""
    if any(not getattr(trial.spec.data, "val_size", 0) for trial in trials):
        yield Fault("search", "chooses by validation data: set `data.val_size` above 0")
    if search.stop and len({canonical(trial.settings["data.name"]) for trial in trials}) > 1:
        yield Fault("search.stop", "compares trials, so these need the same `data`")
    axes = {path for block in grid for key in block for path in axis_paths(str(key))}
    for path in search.space:
        if clash := [a for a in axes if f"{a}.".startswith(f"{path}.") or path.startswith(f"{a}.")]:
            yield Fault(f"search.space.{path}", f"stands in the grid's axis `{clash[0]}` too")
        if path not in _SPEC_ORDER or path == "seed":
            yield Fault(f"search.space.{path}", unknown(path, "field", _neighbours(path)))


def _without_effect(
    file: SweepFile, trials: Sequence[Trial], used: Container[int]
) -> Iterator[Fault]:
    """Conditions that no trial meets, which is a mistake, such as a misspelt value.

    `used` are the numbers of the entries of `exclude` that do agree with some.
    """
    for number in range(len(file.exclude)):
        if number not in used:
            yield Fault(f"exclude[{number}]", "agrees with no trial of this sweep")
    for number, block in enumerate(file.evaluate):
        if block.when and not any(agrees(trial.spec, block.when) for trial in trials):
            yield Fault(f"evaluate[{number}].when", "agrees with no trial of this sweep")


def _validated(tree: Tree, faults: list[Fault]) -> SweepFile:
    """The file's top level; what is wrong there is noted and left out, to find faults below too."""
    try:
        return SweepFile.model_validate(tree)
    except ValidationError as error:
        wrong = faults_of(error, SweepFile, tree)
        faults += [Fault(dotted(path) or "(file)", message) for path, message in wrong]
        bad = {str(path[0]) for path, _ in wrong if path} | {"name"}
        rest = {key: value for key, value in tree.items() if key not in bad}
        return SweepFile.model_validate(rest | {"name": "unnamed"})


# ---------------------------------------------------------------------------------- expanding


def _expand(file: SweepFile, faults: list[Fault]) -> Iterator[tuple[Trial, list[int]]]:
    """Every trial, with the numbers of the entries of `exclude` that agree with it.

    They are in the order of blocks, axes (the last varies fastest) and seeds. One that two cells
    resolve to stands twice.
    """
    if "seed" in file.base:
        faults.append(Fault("base.seed", "seeds are given by `seeds`, a list beside `base`"))
    for number, entry in enumerate(file.exclude):
        check_cell(f"exclude[{number}]", entry, faults)
    for cell in _cells(file, faults):
        near = [n for n, entry in enumerate(file.exclude) if agrees(cell.spec, _seedless(entry))]
        for seed in file.seeds:
            trial = cell.trial(seed)
            yield trial, [n for n in near if agrees(trial.spec, file.exclude[n])]


def _kept(expanded: Iterable[tuple[Trial, list[int]]]) -> tuple[Trial, ...]:
    """Every trial that is not excluded, once."""
    kept: dict[str, Trial] = {}
    for trial, excluded_by in expanded:
        if not excluded_by:
            kept.setdefault(trial.id, trial)
    return tuple(kept.values())


def _seedless(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {path: value for path, value in entry.items() if path != "seed"}


def _cells(file: SweepFile, faults: list[Fault]) -> Iterator[Cell]:
    """The cells of all blocks that resolve to a spec."""
    blocks = [_axes(block, f"grid[{number}]", faults) for number, block in enumerate(file.grid)]
    repeats = {"seeds": len(file.seeds)}
    if file.search:
        repeats["search.samples"] = file.search.samples
    if excess := _excess(blocks, repeats):
        faults.append(Fault("grid", excess))
        return
    samples = draws(file.search) if file.search else [{}]
    wrong = 0
    for number, axes in enumerate(blocks):
        for cell, drawn in itertools.product(_product(axes), samples):
            spec = _resolve(file.base, cell | drawn, f"grid[{number}]", faults)
            if spec is not None:
                yield Cell(spec)
                continue
            wrong += 1
            if wrong == MOST_WRONG_CELLS:
                faults.append(Fault("grid", f"{wrong} cells are wrong; the rest was not checked"))
                return


def _excess(blocks: Sequence[Sequence[Axis]], repeats: Mapping[str, int]) -> str | None:
    """Says by which axes a sweep, each cell so often repeated, has too many trials, if it does."""
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
        f"makes {size} trials, and {MOST_TRIALS:,} is the most. The largest block, "
        f"grid[{largest}], has {' x '.join(factors)}"
    )


def agrees(spec: TrialSpec, cell: Mapping[str, Any]) -> bool:
    """Whether a trial has what a partial cell (path -> value) says: setting it changes nothing."""
    if not cell:
        return True
    tree = spec.model_dump(exclude_none=True)
    for path, value in _leaves(cell):
        set_path(tree, path.split("."), value)
    try:
        return TrialSpec.model_validate(tree) == spec
    except ValidationError:
        return False


def _leaves(cell: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A cell's paths and values, groups and names that stand for groups taken apart."""
    for key, value in cell.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}.")
        else:
            yield (f"{path}.name" if f"{path}.name" in _SPEC_ORDER else path), value


def check_cell(where: str, cell: Mapping[str, Any], faults: list[Fault]) -> None:
    """Notes the paths in a partial cell that no trial can have."""
    for path, _ in _leaves(cell):
        if path not in _SPEC_ORDER:
            faults.append(Fault(f"{where}.{path}", unknown(path, "field", _neighbours(path))))


def _neighbours(path: str) -> list[str]:
    """The paths that a trial may have in the group of an unknown path, as far as it is known."""
    group = path.rpartition(".")[0]
    while group and group not in _SPEC_ORDER:
        group = group.rpartition(".")[0]
    near = [known for known in _SPEC_ORDER if known.rpartition(".")[0] == group]
    return near or _neighbours(group)


def _axes(block: Tree, where: str, faults: list[Fault]) -> list[Axis]:
    axes: list[Axis] = []
    taken: set[str] = set()
    for key, values in block.items():
        paths = axis_paths(str(key))
        if "seed" in paths:
            faults.append(Fault(f"{where}.{key}", "seeds are given by `seeds`, beside `grid`"))
        faults += [
            Fault(f"{where}.{key}", f"`{path}` stands in two axes of this block")
            for path in taken.intersection(paths)
        ]
        faults += [Fault(f"{where}.{key}", TOO_DEEP) for path in paths if is_too_deep(path)]
        if len(set(paths)) < len(paths):
            faults.append(Fault(f"{where}.{key}", "zips a field with itself"))
        taken.update(paths)
        if any(map(is_too_deep, paths)):
            continue
        if not isinstance(values, list) or not values:
            what = f"an axis is a list of values, found {shown(values)}"
            faults.append(Fault(f"{where}.{key}", what))
        elif any(
            len(paths) > 1 and (not isinstance(v, list) or len(v) != len(paths)) for v in values
        ):
            faults.append(
                Fault(
                    f"{where}.{key}",
                    f"zips {len(paths)} fields: each value is a list of {len(paths)}",
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


def _resolve(
    base: Tree, cell: Mapping[str, Any], where: str, faults: list[Fault]
) -> TrialSpec | None:
    tree = copy.deepcopy(base)
    tree.pop("seed", None)
    # Whole groups first, so that an axis into a group is not overwritten by one that replaces it.
    for path in sorted(cell, key=lambda path: path.count(".")):
        set_path(tree, path.split("."), cell[path])
    try:
        return TrialSpec.model_validate(tree)
    except ValidationError as error:
        for where_in_tree, message in faults_of(error, TrialSpec, tree):
            text = dotted(where_in_tree)
            from_axis = any(
                f"{text}.".startswith(f"{p}.") or p.startswith(f"{text}.") for p in cell
            )
            faults.append(
                Fault(f"{where if from_axis else 'base'}.{text}".removesuffix("."), message)
            )
        return None
