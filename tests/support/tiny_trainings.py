"""Small trainings, for tests of training and of what it is resumed from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from nodebench.data.dataset import Data
from nodebench.data.load import load_data
from nodebench.models.build import build
from nodebench.spec import TrialSpec
from nodebench.store.rows import Row
from nodebench.training.checkpoint import TrainState
from nodebench.training.loop import new_state
from nodebench.training.tasks.table import task_for
from tests.support.tiny_sweeps import rows_of

SPHERES = {"name": "spheres", "train_size": 50, "test_size": 30}
DIGITS = {"name": "digits", "train_size": 50, "test_size": 30}
PLAIN = {"name": "plainode", "width": 16}
EULER = {"method": "euler", "steps": 3}
CPU = torch.device("cpu")


def spec(**fields: object) -> TrialSpec:
    return TrialSpec(**{"data": SPHERES, "model": PLAIN, "solver": EULER} | fields)


def begun(trial: TrialSpec) -> tuple[TrainState, Data]:
    data = load_data(trial, Path("/nonexistent"))
    return new_state(build(trial, data), trial), data


def trained(trial: TrialSpec, on_epoch: Callable[[Row], None] = lambda _row: None) -> TrainState:
    state, data = begun(trial)
    for row in rows_of(state, task_for(data, trial), trial):
        on_epoch(row)
    return state
