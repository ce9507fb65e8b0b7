"""Sweep files, found by name, listed and begun; and trials, found by the start of their ids."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from nodebench.errors import Fault, InputError, StoreError, SweepError, shown, similar
from nodebench.files import PACKAGE
from nodebench.planning.launches import last_launch
from nodebench.spec import Trial
from nodebench.spec.identity import Cell
from nodebench.store import Store
from nodebench.store.locations import default_store
from nodebench.sweep import Sweep, load
from nodebench.sweep.file import SMALLER, SizeName, SweepFile
from nodebench.sweep.points import require_points
from nodebench.sweep.safe_yaml import parse_file

LOCAL_SWEEPS = Path("sweeps")
"""The folder of the working folder's sweeps, whose names come before nodebench's own."""

STARTER = PACKAGE / "sweep" / "starter.yaml"
"""The sweep that `write_starter` writes, with NAME and FILE in the places of its own."""


def load_sweep(
    source: str | Path,
    *,
    overrides: str | Sequence[str] = (),
    size: SizeName = "full",
    small: bool = False,
) -> Sweep:
    """A sweep by its file, by the folder of its report, or by name.

    Names are those of files in `sweeps/`, of sweeps that were launched with this store, and of
    nodebench's own sweeps. `small` is short for `size="small"`.

    Raises:
        SweepError: with every mistake in the file, or if a module is not found that its trials'
            ids depend on: from here, they would be others.
        InputError: if it should be both small and medium.
    """
    path = sweep_path(source)
    overrides = [overrides] if isinstance(overrides, str) else overrides
    sweep = load(path, overrides, size_of(size, small=small))
    if not_found := sorted(set(_not_found(sweep))):
        raise SweepError(str(path), not_found, overrides)
    is_whole = sweep.made.size == "full" and not sweep.made.changed
    if is_whole:  # else the trials of a block may not be there
        require_points(sweep, str(path))
    return sweep


def size_of(size: SizeName, *, small: bool) -> SizeName:
    """The size that is meant where `small` is short for one of them.

    Raises:
        InputError: if another is asked for too.
    """
    if small and size == "medium":
        raise InputError("`--small` is short for `--size small`: leave it out for another size")
    return "small" if small else size


def _not_found(sweep: Sweep) -> Iterator[Fault]:
    """The modules without which a trial's id is not what it is elsewhere."""
    for cell in {trial.cell for trial in sweep.trials}:
        for field, part in (("data", cell.spec.data), ("model", cell.spec.model)):
            module = part.name.partition(":")[0]
            if module in cell.code and cell.code[module] is None:
                yield Fault(
                    f"{field}.name",
                    f"{shown(part.name)}: module {shown(module)} is not found from `{Path.cwd()}`. "
                    "Start nodebench in its folder, or set PYTHONPATH",
                )


def sweep_path(source: str | Path) -> Path:
    """The file of a sweep that is given as `load_sweep` takes it.

    Raises:
        SweepError: if there is none.
    """
    name = _name_of(source)
    files = [Path(source) / "sweep.yaml", Path(source), LOCAL_SWEEPS / f"{name}.yaml"]
    found = [path for path in (*files, *_by_name(name)) if os.path.exists(path)]
    if files := [path for path in found if not os.path.isdir(path)]:
        return files[0]
    if found:
        return found[0]  # a folder that is not a report's, as whoever reads it will say
    here = [path for path in (f"{name}.yaml", f"{name}.yml") if os.path.isfile(path)]
    alike = here or similar(name, sweep_files())
    hint = f"Did you mean `{alike[0]}`?" if alike else "`nodebench sweeps` lists all"
    message = f"there is no such file, and no sweep of that name. {hint}"
    raise SweepError(str(source), [Fault("(file)", message)])


def _name_of(source: str | Path) -> str:
    """The name in `quickstart`, `quickstart.yaml` and `sweeps/quickstart.yaml`."""
    return str(source).removeprefix(f"{LOCAL_SWEEPS}/").removesuffix(".yaml")


def _by_name(name: str) -> list[Path]:
    """The files that a name may stand for where `sweeps/` has none: launched, or nodebench's own.

    A sweep of the user's own that was launched comes before one of nodebench's that has its name.
    """
    launched = default_store().sweep(name).file
    own = {path.stem: path for path in shipped_sweeps().glob("*.yaml")}.get(name)
    if own is None:
        return [launched]
    last = last_launch(name, default_store())
    return [own] if last == own.resolve() else [launched, own]


def shipped_sweeps() -> Path:
    """The folder of the sweeps that come with nodebench: in the package, or next to a clone's."""
    installed = PACKAGE / "sweeps"
    return installed if installed.is_dir() else PACKAGE.parent / "sweeps"


def sweep_files() -> dict[str, Path]:
    """Every sweep that has a name here -> its file: nodebench's own, and those in `sweeps/`."""
    folders = (shipped_sweeps(), LOCAL_SWEEPS)
    found = {path.stem: path for folder in folders for path in folder.glob("*.yaml")}
    return dict(sorted(found.items()))


def write_starter(file: Path) -> Path:
    """Writes a commented sweep to begin with, named after its file; returns the path.

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
    """A sweep that has a name here, as its file describes it."""

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
    """Every sweep that has a name here, by name; their trials are not planned."""
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
    """A sweep's models with the weights of a file instead of a training, under its evaluations.

    It is named after both, so that both sets of results are kept.

    Raises:
        SweepError: with every mistake in the sweep file.
    """
    sweep = load_sweep(source, overrides=overrides, size=size)
    own = weights.stem
    if own.startswith("checkpoint"):  # every trial's is called so
        own = f"{weights.resolve().parent.name}{own.removeprefix('checkpoint')}"
    label = re.sub(r"[^A-Za-z0-9_-]", "-", f"{sweep.name}-{own}")
    if len(label) > 64:  # what a name may have; what is cut would not tell two apart
        label = f"{label[:51]}-{hashlib.sha256(label.encode()).hexdigest()[:12]}"
    changes = [f"weights={json.dumps(str(weights))}", f"name={label}"]
    # Other seeds would be the same weights again, on the same data unless these are generated.
    changes += ["train.epochs=null", "train.iterations=0", f"seeds=[{sweep.trials[0].spec.seed}]"]
    return load_sweep(source, overrides=[*overrides, *changes], size=size)


def find(start: str, store: Store, sweep: Sweep | None) -> Trial:
    """The trial whose id starts so: of the sweep's plan, or of the store if no sweep is given.

    Raises:
        StoreError: if there is none, or more than one.
    """
    if sweep is None:
        folder = store.find(start)
        return Trial(spec := folder.spec(), Cell(spec, folder.code(), folder.weights()))
    found = [trial for trial in sweep.trials if trial.id.startswith(start)]
    if len(found) != 1:
        state = "several trials start" if found else "no trial starts"
        raise StoreError(f"{state} with `{start}` in `{sweep.name}`; see `plan`")
    return found[0]
