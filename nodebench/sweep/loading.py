"""From a sweep file to an ordered list of trials, purely and deterministically."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nodebench.errors import Fault, SweepError, unknown
from nodebench.spec import Trial
from nodebench.spec.identity import canonical
from nodebench.sweep.compose import read
from nodebench.sweep.file import Made, Search, SizeName, SweepFile
from nodebench.sweep.grid import expand, not_excluded
from nodebench.sweep.match import SPEC_ORDER, agrees, check_cell, neighbors
from nodebench.sweep.paths import axis_paths
from nodebench.sweep.safe_yaml import Tree, dump
from nodebench.sweep.sweep import Origin, Sweep
from nodebench.sweep.validation import dotted, faults_of


def load(path: Path, overrides: Sequence[str] = (), size: SizeName = "full") -> Sweep:
    """Reads a sweep file in one of its sizes and expands it.

    Raises:
        SweepError: with every mistake found, by YAML path.
    """
    faults: list[Fault] = []
    tree = read(path, overrides, size, faults)
    file = _validated(tree, faults)
    expanded = list(expand(file, faults))
    trials = not_excluded(expanded)
    if file.search:
        faults += _not_searchable(file.search, file.grid, trials)
    for where, cell in _partial_cells(file):
        check_cell(where, cell, faults)
    faults += _not_shares(file, trials)
    faults += _not_comparable(trials)
    if not (trials or faults):
        faults.append(Fault("exclude", "leaves no trial"))
    is_as_written = file.made.size == "full" and not file.made.changed
    if not faults and is_as_written:  # else the trials that an entry is about may not be there
        used = {number for _, numbers in expanded for number in numbers}
        faults += _without_effect(file, trials, used)
    if faults:
        raise SweepError(str(path), faults, overrides)
    made = _made(file.made, trials, path, size)
    if made != file.made:
        tree["made"] = made.model_dump(exclude_defaults=True)
    text = dump(tree, width=100)
    return Sweep(
        file.name,
        file.about,
        trials,
        file.evaluate,
        file.baseline,
        file.claims,
        file.resources,
        file.limits,
        file.margin,
        file.checkpoint_minutes,
        file.search,
        made,
        text,
        Origin(str(path.resolve()), size, tuple(filter(_names_it, overrides))),
    )


def load_origin(origin: Origin) -> Sweep:
    """What the file that a sweep came from says now.

    Raises:
        SweepError: with every mistake in it.
    """
    return load(Path(origin.file), origin.renamed, origin.size)


def _names_it(override: str) -> bool:
    return override.partition("=")[0].strip() == "name"


def _made(made: Made, trials: Sequence[Trial], path: Path, size: SizeName) -> Made:
    """The same, with how the trials differ from those of the file without `--set`, and in full."""
    found: dict[str, Any] = {}
    if made.changed and not made.has_other_cells:
        own = {trial.cell.key for trial in _trials(path, size)}
        found["has_other_cells"] = not {trial.cell.key for trial in trials} <= own
    if size != "full":
        found["instead"] = _instead(trials, _trials(path, "full"))
    return made.model_copy(update=found)


def _trials(path: Path, size: SizeName) -> tuple[Trial, ...]:
    """Those of a file as it is written; what is wrong with it is left out."""
    ignored: list[Fault] = []
    file = _validated(read(path, (), size, ignored), ignored)
    return not_excluded(list(expand(file, ignored)))


def _instead(trials: Sequence[Trial], full: Sequence[Trial]) -> dict[str, list[Any]]:
    """The settings in which some trial is like none at full size -> their values there."""
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
        if path not in SPEC_ORDER or path == "seed":
            yield Fault(f"search.space.{path}", unknown(path, "field", neighbors(path)))


def _without_effect(
    file: SweepFile, trials: Sequence[Trial], used: Container[int]
) -> Iterator[Fault]:
    """Conditions that no trial meets, which is a mistake, such as a misspelt value.

    `used` are the numbers of the entries of `exclude` that do agree with some.
    """
    for number in range(len(file.exclude)):
        if number not in used:
            yield Fault(f"exclude[{number}]", "agrees with no trial of this sweep")
    for where, cell in _partial_cells(file):
        if cell and not any(agrees(trial.spec, cell) for trial in trials):
            yield Fault(where, "agrees with no trial of this sweep")


def _not_shares(file: SweepFile, trials: Sequence[Trial]) -> Iterator[Fault]:
    """Claims about accuracies in percent, which would never hold."""
    headlines = {trial.spec.data.headline for trial in trials}
    for number, claim in enumerate(file.claims):
        metrics = {claim.metric} if claim.metric else headlines
        is_accuracy = all(metric.endswith("accuracy") for metric in metrics)
        if is_accuracy and not isinstance(claim.other, dict) and abs(claim.other) > 1:
            yield Fault(
                f"claims[{number}]",
                f"accuracies are shares of 1: {claim.other / 100:g} is {claim.other:g} %",
            )


def _not_comparable(trials: Sequence[Trial]) -> Iterator[Fault]:
    """Data sets that are judged by different metrics, of which no table could be made."""
    metrics = {str(trial.spec.data.metric): trial.spec.data.name for trial in trials}
    if len(metrics) > 1:
        what = ", ".join(f"{name} by {metric}" for metric, name in metrics.items())
        yield Fault("base.data", f"these are judged by different metrics ({what}): make two sweeps")


def _partial_cells(file: SweepFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where a file names some of its trials, and by what, its own `exclude` aside."""
    for number, block in enumerate(file.evaluate):
        yield f"evaluate[{number}].when", block.when
    yield "baseline", file.baseline
    for number, claim in enumerate(file.claims):
        for name, cell in claim.cells.items():
            yield f"claims[{number}].{name}", cell


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
