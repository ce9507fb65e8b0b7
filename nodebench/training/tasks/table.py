"""The task for each kind of data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nodebench.data.dataset import Data
from nodebench.data.system import Flow
from nodebench.data.trajectory import Trajectory
from nodebench.spec import TrialSpec
from nodebench.training.task import Task
from nodebench.training.tasks.classification import Classification
from nodebench.training.tasks.flow_fit import FlowFit
from nodebench.training.tasks.trajectory_fit import TrajectoryFit


def task_for(data: Data | Trajectory | Flow, spec: TrialSpec) -> Task[Any]:
    """The task for a trial's data."""
    return next(task for kind, task in TASKS.items() if isinstance(data, kind))(data, spec)


TASKS: dict[type, Callable[..., Task[Any]]] = {
    Data: Classification,
    Trajectory: TrajectoryFit,
    Flow: FlowFit,
}
"""The type of a trial's data -> its task."""
