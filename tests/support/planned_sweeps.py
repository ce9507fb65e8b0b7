"""Sweeps that are planned and never run."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from nodebench.errors import SweepError
from nodebench.spec import Trial, TrialSpec
from nodebench.sweep import Sweep, load

BASE = {"data": "digits", "model": {"name": "odenet"}, "solver": {"method": "euler", "steps": 4}}


def write_sweep(folder: Path, text: str = "", **fields: object) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text or yaml.safe_dump({"name": "t", "base": BASE, **fields}))
    return path


def trial(**fields: object) -> Trial:
    return Trial(TrialSpec.model_validate({**BASE, **fields}))


def sweep(folder: Path, **fields: object) -> Sweep:
    return load(write_sweep(folder, **fields))


def faults(path: Path, **options: object) -> list[str]:
    """The mistakes in a sweep file, as they are told, but for their lines."""
    with pytest.raises(SweepError) as caught:
        load(path, **options)
    return [str(replace(fault, line=None)) for fault in caught.value.faults]


def lines(path: Path, **options: object) -> dict[str, int | None]:
    """The lines of the mistakes in a sweep file, by their places."""
    with pytest.raises(SweepError) as caught:
        load(path, **options)
    return {fault.where: fault.line for fault in caught.value.faults}
