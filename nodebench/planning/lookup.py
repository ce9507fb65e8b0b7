"""Finding a sweep by its file or its name, and a trial by the start of its id."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from nodebench.errors import Fault, InputError, StoreError, SweepError, shown, unknown
from nodebench.spec import Trial
from nodebench.spec.identity import Cell
from nodebench.store import Store
from nodebench.store.locations import default_store
from nodebench.sweep import Sweep, load
from nodebench.sweep.file import SizeName
from nodebench.sweep.points import require_points


def load_sweep(
    source: str | Path,
    *,
    overrides: Sequence[str] = (),
    size: SizeName = "full",
    small: bool = False,
) -> Sweep:
    """A sweep by its file, by the folder of its report, or by name.

    Names are those of files in `sweeps/`, and of sweeps that were launched with this store.
    `small` is short for `size="small"`.

    Raises:
        SweepError: with every mistake in the file, or if a module is not found that its trials'
            ids depend on: from here, they would be others.
        InputError: if it should be both small and medium.
    """
    path = sweep_path(source)
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
    named = Path("sweeps") / f"{str(source).removesuffix('.yaml')}.yaml"
    launched = default_store().sweep(str(source)).file
    for path in (Path(source) / "sweep.yaml", Path(source), named, launched):
        if os.path.exists(path):  # False for what can be no path
            return path
    known = sorted(file.stem for file in Path("sweeps").glob("*.yaml"))
    message = f"there is no such file, nor {shown(named)} in `{Path.cwd()}`."
    hint = f" {unknown(source, 'sweep', known)}" if known else ""
    raise SweepError(str(source), [Fault("(file)", message + hint)])


def foreign(
    source: str | Path, weights: Path, *, overrides: Sequence[str] = (), size: SizeName = "full"
) -> Sweep:
    """A sweep's models with the weights of a file instead of a training, under its evaluations.

    It is named after both, so that both sets of results are kept.

    Raises:
        SweepError: with every mistake in the sweep file.
    """
    sweep = load_sweep(source, overrides=overrides, size=size)
    own = weights.parent.name if weights.stem == "checkpoint" else weights.stem
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
        return Trial(spec := folder.spec(), Cell(spec, folder.code()))
    found = [trial for trial in sweep.trials if trial.id.startswith(start)]
    if len(found) != 1:
        state = "several trials start" if found else "no trial starts"
        raise StoreError(f"{state} with `{start}` in `{sweep.name}`; see `plan`")
    return found[0]
