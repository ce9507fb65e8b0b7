"""Finds, lists and creates sweep files, and finds trials by the start of their ids."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from nodebench.errors import (
    Fault,
    InputError,
    StoreError,
    SweepError,
    shown,
    similar,
    unknown,
)
from nodebench.files import PACKAGE
from nodebench.planning.launches import last_launch
from nodebench.spec import Trial
from nodebench.store import Store
from nodebench.store.locations import default_store
from nodebench.store.store import matching_id
from nodebench.sweep import Sweep, load
from nodebench.sweep.file import SMALLER, SizeName, SweepFile
from nodebench.sweep.points import require_points
from nodebench.sweep.safe_yaml import inline, parse_file

ID_PREFIX = re.compile(r"[0-9a-f]{1,12}")
"""The start of a trial's id."""

LOCAL_SWEEPS = Path("sweeps")
"""The sweeps of the working folder, whose names take precedence over nodebench's own."""

STARTER = PACKAGE / "sweep" / "starter.yaml"
"""The template of `write_starter`, with the placeholders NAME and FILE."""

SweepSource = Sweep | str | Path
"""A sweep, or a file, a report's folder or a name by which `load_sweep` finds one."""

Overrides = str | Sequence[str] | Mapping[str, Any]
"""Changes of a sweep file: a text `path=value` or several, or path -> value."""


def resolved(sweep: SweepSource, store: Store | None) -> tuple[Sweep, Store]:
    """The sweep, loaded unless it is one, and the store, by default that of NODEBENCH_RUNS.

    Raises:
        SweepError, StoreError: as in `load_sweep` and `default_store`.
    """
    store = store or default_store()
    return sweep if isinstance(sweep, Sweep) else load_sweep(sweep, store=store), store


def load_sweep(
    source: str | Path,
    *,
    overrides: Overrides = (),
    size: SizeName = "full",
    small: bool = False,
    store: Store | None = None,
) -> Sweep:
    """A sweep, given by its file, the folder of its report, or its name.

    Names are those of files in `sweeps/` or the working folder, of sweeps that were launched with
    the store (by default that of NODEBENCH_RUNS), and of nodebench's own sweeps. `small` is short
    for `size="small"`. `overrides` are those of `--set`: texts `path=value`, or path -> value.

    Raises:
        SweepError: with every mistake in the file, or if a module that its trials' ids depend on
            is not found: the ids would be different here.
        InputError: if `source` is not a text or a path, both the small and the medium size are
            requested, or an override's value is not plain.
    """
    path = sweep_path(source, store)
    overrides = _as_texts(overrides)
    sweep = load(path, overrides, size_of(size, small=small))
    if not_found := sorted(set(_not_found(sweep))):
        raise SweepError(str(path), not_found, overrides)
    is_whole = sweep.made.size == "full" and not sweep.made.changed
    if is_whole:  # otherwise the trials of a block may be absent
        require_points(sweep, str(path))
    return sweep


def _as_texts(overrides: Overrides) -> Sequence[str]:
    if isinstance(overrides, Mapping):
        return [_assignment(path, value) for path, value in overrides.items()]
    return [overrides] if isinstance(overrides, str) else overrides


def _assignment(path: str, value: Any) -> str:
    try:
        return f"{path}={inline(value)}"
    except yaml.YAMLError as error:
        raise InputError(
            f"overrides: the value of {shown(path)} is of type `{type(value).__name__}`. Give "
            "Python's own numbers, text, None, or lists and mappings of these"
        ) from error


def size_of(size: SizeName, *, small: bool) -> SizeName:
    """The size, where `small` is short for `size="small"`.

    Raises:
        InputError: if the medium size is requested too, or there is no such size.
    """
    if size not in get_args(SizeName):
        raise InputError(unknown(size, "size", get_args(SizeName)))
    if small and size == "medium":
        raise InputError("`--small` is short for `--size small`: leave it out for another size")
    return "small" if small else size


def _not_found(sweep: Sweep) -> Iterator[Fault]:
    """Faults for modules that are not found here, on which the ids of trials depend."""
    for cell in {trial.cell for trial in sweep.trials}:
        for field, part in (("data", cell.spec.data), ("model", cell.spec.model)):
            module = part.name.partition(":")[0]
            if module in cell.code_hashes and cell.code_hashes[module] is None:
                yield Fault(
                    f"{field}.name",
                    f"{shown(part.name)}: module {shown(module)} is not found from `{Path.cwd()}`. "
                    "Start nodebench in its folder, or set PYTHONPATH",
                )


def sweep_path(source: str | Path, store: Store | None = None) -> Path:
    """The file of a sweep, which is given as for `load_sweep`.

    Raises:
        InputError: if it is not given by a text or a path.
        SweepError: if there is no such sweep.
    """
    if not isinstance(source, str | Path):
        raise InputError(
            f"a sweep is given by its file, the folder of its report or its name, found a value of "
            f"type `{type(source).__name__}`. Write a mapping to a file first (`yaml.safe_dump`); "
            "only `overrides` of `load_sweep` takes one, path -> value"
        )
    name = _name_of(source)
    files = [Path(source) / "sweep.yaml", Path(source)]
    files += [LOCAL_SWEEPS / f"{name}.yaml", Path(f"{name}.yaml")]
    files += _by_name(name, store or default_store())
    found = [path for path in files if os.path.exists(path)]
    if files := [path for path in found if not os.path.isdir(path)]:
        return files[0]
    if found:
        return found[0]  # a folder that is not a report's: reading it will fail with that message
    known = {each: each for each in sweep_files()} | _neighbors(Path(name).parent)
    alike = similar(Path(name).name, known)
    hint = f"Did you mean `{known[alike[0]]}`?" if alike else "`nodebench sweeps` lists all"
    message = f"there is no such file, and no sweep of that name. {hint}"
    raise SweepError(str(source), [Fault("(file)", message)])


def _neighbors(folder: Path) -> dict[str, str]:
    """Name -> path of what may be a sweep in a folder: YAML files, and folders of reports."""
    if not os.path.isdir(folder):  # unlike Path.is_dir, accepts texts that are not paths
        return {}
    found = [file.parent for file in folder.glob("*/sweep.yaml")]
    found += [*folder.glob("*.yml"), *folder.glob("*.yaml")]
    return {path.stem: str(path) for path in sorted(found)}


def _name_of(source: str | Path) -> str:
    """The name in `quickstart`, `quickstart.yaml` and `sweeps/quickstart.yaml`."""
    return str(source).removeprefix(f"{LOCAL_SWEEPS}/").removesuffix(".yaml")


def _by_name(name: str, store: Store) -> list[Path]:
    """The files that a name may stand for if `sweeps/` has none: launched, or nodebench's own.

    A launched sweep of the user's takes precedence over one of nodebench's with the same name.
    """
    launched = store.sweep(name).file
    own = {path.stem: path for path in shipped_sweeps().glob("*.yaml")}.get(name)
    if own is None:
        return [launched]
    last = last_launch(name, store)
    return [own] if last == own.resolve() else [launched, own]


def shipped_sweeps() -> Path:
    """The folder of nodebench's own sweeps: in the package or, in a clone, next to it."""
    installed = PACKAGE / "sweeps"
    return installed if installed.is_dir() else PACKAGE.parent / "sweeps"


def sweep_files() -> dict[str, Path]:
    """Name -> file of every sweep here: nodebench's own, and those in `sweeps/`."""
    folders = (shipped_sweeps(), LOCAL_SWEEPS)
    found = {path.stem: path for folder in folders for path in folder.glob("*.yaml")}
    return dict(sorted(found.items()))


def write_starter(file: Path) -> Path:
    """Writes a commented sweep to start from, named after its file; returns the path.

    Raises:
        InputError: if the file exists, or its name cannot be a sweep's.
    """
    file = file if file.suffix in (".yaml", ".yml") else file.with_name(f"{file.name}.yaml")
    try:
        name = SweepFile(name=file.stem).name
    except ValidationError as error:
        why = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise InputError(f"`{file}`: the file's name becomes the sweep's, and {why}") from None
    text = STARTER.read_text(encoding="utf-8").replace("NAME", name).replace("FILE", str(file))
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError:
        raise InputError(f"`{file}` exists, and is not overwritten: give another name") from None
    return file


@dataclass(frozen=True)
class Listed:
    """A sweep that can be found by name, as its file describes it."""

    name: str
    file: Path
    about: str
    sizes: tuple[SizeName, ...]
    problem: str | None = None
    """Why its file cannot be read, if it cannot."""

    @property
    def is_shipped(self) -> bool:
        """Whether it is one of nodebench's own."""
        return self.file.parent == shipped_sweeps()


def list_sweeps() -> list[Listed]:
    """Every sweep that can be found by name, sorted by it; their trials are not planned."""
    return [_listed(name, path) for name, path in sweep_files().items()]


def _listed(name: str, path: Path) -> Listed:
    try:
        tree = parse_file(path)
    except SweepError as error:
        return Listed(name, path, "", (), str(error.faults[0]))
    sizes: list[SizeName] = [size for size in SMALLER if tree.get(size)]
    return Listed(name, path, str(tree.get("about", "")).strip(), (*sizes, "full"))


def foreign(
    source: str | Path, weights: Path, *, overrides: Sequence[str] = (), size: SizeName = "full"
) -> Sweep:
    """A sweep that evaluates the models of a sweep with weights from a file, without training.

    It is named after both, so that both sets of results are kept.

    Raises:
        SweepError: with every mistake in the sweep file.
    """
    sweep = load_sweep(source, overrides=overrides, size=size)
    own = weights.stem
    if own.startswith("checkpoint"):  # the name of every trial's checkpoint
        own = f"{weights.resolve().parent.name}{own.removeprefix('checkpoint')}"
    label = re.sub(r"[^A-Za-z0-9_-]", "-", f"{sweep.name}-{own}")
    if len(label) > 64:  # the limit of a name; the hash keeps cut names distinct
        label = f"{label[:51]}-{hashlib.sha256(label.encode()).hexdigest()[:12]}"
    changes = [f"weights={json.dumps(str(weights))}", f"name={label}"]
    # Other seeds would use the same weights again, on the same data unless that is generated.
    changes += ["train.epochs=null", "train.iterations=0", f"seeds=[{sweep.trials[0].spec.seed}]"]
    return load_sweep(source, overrides=[*overrides, *changes], size=size)


def find(start: str, store: Store, sweep: Sweep | None) -> Trial:
    """The trial whose id starts with `start`, in the sweep's plan or, without a sweep, the store.

    Raises:
        StoreError: if there is none, or more than one.
    """
    if sweep is None:
        if not any(trial_id.startswith(start) for trial_id in store.trial_ids()):
            raise StoreError(
                f"no trial starts with `{start}` in `{store.trials_root}`. One that has not run "
                "yet is found with its sweep: name that too"
            )
        return store.find(start).trial()
    planned = {trial.id: trial for trial in sweep.trials}
    return planned[matching_id(start, planned, sweep.name)]


def in_order(
    trial: SweepSource, sweep: SweepSource | None = None
) -> tuple[str, SweepSource | None]:
    """The start of a trial's id and the trial's sweep, if given, in whichever order they are given.

    Raises:
        InputError: if neither can be an id.
    """
    if sweep is not None and _may_be_id(sweep) and not _may_be_id(trial):
        trial, sweep = sweep, trial
    if not isinstance(trial, str):
        raise InputError(
            f"a trial is given by its id or the start of the id, found {shown(repr(trial))}. "
            "`nodebench plan SWEEP` lists ids"
        )
    return trial, sweep


def _may_be_id(given: SweepSource) -> bool:
    return isinstance(given, str) and ID_PREFIX.fullmatch(given) is not None
