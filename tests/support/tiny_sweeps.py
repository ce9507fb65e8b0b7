"""Sweeps that train in no time, for tests of everything around training."""

import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from nodebench.planning import RunOptions
from nodebench.spec.point import EvaluationPoint
from nodebench.spec.solver import Solver
from nodebench.store import Store
from nodebench.store.rows import ERRORS_RULE, INCIDENTAL, Row
from nodebench.sweep import Sweep, load
from nodebench.training.loop import train
from nodebench.training.steps.step import Step

TINY: dict[str, Any] = {
    "data": {"name": "spheres", "train_size": 64, "test_size": 32},
    "model": {"name": "plainode", "width": 4},
    "solver": {"method": "euler", "steps": 2},
    "train": {"epochs": 3, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.01}},
}


def write_tiny(folder: Path, name: str = "tiny", **fields: Any) -> Path:
    """A sweep file over `TINY`, with the given top-level fields."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, "base": TINY, **fields}))
    return path


def tiny(folder: Path, **fields: Any) -> Sweep:
    """The same, loaded."""
    return load(write_tiny(folder, **fields))


def options(sweep: Sweep, folder: Path, **changes: Any) -> RunOptions:
    """How the tests run a sweep's trials."""
    demanded = {"limits": sweep.limits, "evaluate": sweep.evaluate}
    return RunOptions(folder, sweep.resources, **{"checkpoint_s": 0.0, **demanded, **changes})


def rows_of(*training: Any, **how: Any) -> Iterator[Row]:
    """The rows of `train`, whose steps are taken."""
    return (item for item in train(*training, **how) if not isinstance(item, Step))


def essence(rows: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
    """History rows without what differs between two runs of one trial."""
    return [{k: v for k, v in row.items() if k not in INCIDENTAL} for row in rows]


EULER_2 = Solver(method="euler", steps=2)


def point(value: float | str, trained: Solver = EULER_2, **fields: Any) -> dict[str, Any]:
    """A made-up row of an evaluated point of a classifier; of a failed one, by its outcome."""
    measures = {"nfe": 99.0, "forward_s": 0.1, "loss": 1.0}
    known = ("nfe", "solver_error", "samples", "lost", "gained", "chance")
    measures |= {name: fields.pop(name) for name in known if name in fields}
    asked = EvaluationPoint(**fields)
    solver = asked.solver(trained, 1.0).model_dump(exclude_none=True)
    row = {"point": asked.row, "solver": solver}
    if isinstance(value, str):
        return {**row, "outcome": value, "reason": "made up"}
    row |= {"outcome": "finished", "errors_rule": ERRORS_RULE}
    return {**row, "accuracy": value, **measures}


def histories(sweep: Sweep, store: Store) -> dict[str, list[Mapping[str, Any]]]:
    """The essence of every trial's history."""
    return {trial.id: essence(store.folder(trial.id).history()) for trial in sweep.trials}


def heeding_interrupts() -> None:
    """For a process that is sent SIGINT: it may be ignored here, as in a shell's background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
