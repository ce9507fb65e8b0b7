"""Finding a sweep: by its file's path or its name, and with weights from elsewhere."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from nodebench.errors import Fault, SweepError, shown, unknown
from nodebench.planning import require_points
from nodebench.sweep import Sweep, load


def load_sweep(source: str | Path, *, overrides: Sequence[str] = (), small: bool = False) -> Sweep:
    """A sweep by its file, by the name of one in `sweeps/`, or by the folder of its report.

    Raises:
        SweepError: with every mistake in the file.
    """
    path = Path(source)
    if os.path.exists(path / "sweep.yaml"):
        path /= "sweep.yaml"
    named = Path("sweeps") / f"{str(source).removesuffix('.yaml')}.yaml"
    if not os.path.exists(path) and os.path.exists(named):  # False for what can be no path
        path = named
    elif not os.path.exists(path):
        known = sorted(file.stem for file in Path("sweeps").glob("*.yaml"))
        message = f"there is no such file, nor {shown(named)} in `{Path.cwd()}`."
        hint = f" {unknown(source, 'sweep', known)}" if known else ""
        raise SweepError(str(source), [Fault("(file)", message + hint)])
    sweep = load(path, overrides, small)
    if not (overrides or small):  # which may take away the trials that a block is about
        require_points(sweep, str(path))
    return sweep


def foreign(
    source: str | Path, weights: Path, *, overrides: Sequence[str] = (), small: bool = False
) -> Sweep:
    """A sweep's models with the weights of a file instead of a training, under its evaluations.

    It is named after both, so that its results stand beside the sweep's own.

    Raises:
        SweepError: with every mistake in the sweep file.
    """
    sweep = load_sweep(source, overrides=overrides, small=small)
    own = weights.parent.name if weights.stem == "checkpoint" else weights.stem
    label = re.sub(r"[^A-Za-z0-9_-]", "-", f"{sweep.name}-{own}")[:64]
    changes = [f"weights={json.dumps(str(weights))}", f"name={label}"]
    # Other seeds would be the same weights again, on the same data unless these are generated.
    changes += ["train.epochs=null", "train.iterations=0", f"seeds=[{sweep.trials[0].spec.seed}]"]
    return load_sweep(source, overrides=[*overrides, *changes], small=small)
