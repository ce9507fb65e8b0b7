"""Loading a sweep file, as tests of input do: it is a sweep or our error, soon."""

import json
import time
from dataclasses import replace
from pathlib import Path

import yaml

from nodebench.errors import SweepError
from nodebench.planning import lookup
from nodebench.sweep import Sweep
from nodebench.sweep.file import SizeName
from nodebench.sweep.points import points

SECONDS = 5.0
"""Of computing, the most that one file may take; a hang would take minutes."""

HEAD = "name: t\nbase: {data: spheres, model: plainode, solver: {method: euler, steps: 2}}\n"
OWN_MODEL = f"{__name__}:net"
CUSTOM = f"name: t\nbase: {{data: spheres, model: {{name: '{OWN_MODEL}', settings: %s}}}}\n"


def outcome(path: Path, *overrides: str, size: SizeName = "full") -> Sweep | list[str]:
    """The sweep that a file is, or what is wrong with it; anything else fails the test."""
    before, start = sorted(path.parent.iterdir()), time.process_time()
    try:
        found = lookup.load_sweep(path, overrides=overrides, size=size)
        for trial in found.trials[:20]:
            assert len(trial.id) == len(trial.recipe_id) == 12
            assert found.label(trial).isprintable()
            points(trial, found.evaluate)
        json.dumps([trial.settings for trial in found.trials[:20]], allow_nan=False)
        assert isinstance(yaml.safe_load(found.text), dict)
    except SweepError as error:
        return messages(error, path.parent)
    finally:
        assert time.process_time() - start < SECONDS
        assert sorted(path.parent.iterdir()) == before
    return found


def messages(error: SweepError, folder: Path) -> list[str]:
    assert Path(error.source).parent == folder
    assert error.faults
    assert all(fault.where and fault.what for fault in error.faults)
    return [str(replace(fault, line=None)) for fault in error.faults]


def outcome_of(folder: Path, content: str | bytes, *overrides: str) -> Sweep | list[str]:
    path = folder / "sweep.yaml"
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    path.write_bytes(content)
    return outcome(path, *overrides)
