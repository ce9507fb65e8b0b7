"""The requirements of trials and the options of running them; neither affects their results."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nodebench.spec import Trial
from nodebench.spec.point import EvaluationPoint
from nodebench.spec.training import Limits
from nodebench.store.locations import data_root
from nodebench.sweep import Sweep
from nodebench.sweep.file import Evaluate, Resources, Stop
from nodebench.sweep.points import points

CHECKPOINT_S = 5.0
"""At the end of an epoch a checkpoint is written if the last one is older than this."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """The requirements that a trial must meet to be done."""

    evaluate: tuple[Evaluate, ...] = ()
    limits: Limits = Limits()
    stop: Stop | None = None
    """How a search ends trials early."""

    retry_failed: bool = False
    """Whether a result that is a failure (DNF) counts as missing."""

    def points(self, trial: Trial) -> list[EvaluationPoint]:
        """All points at which to measure a trial's model."""
        return points(trial, self.evaluate)


@dataclass(frozen=True)
class RunOptions(Demand):
    """The requirements of trials, and the options of running them."""

    data_root: Path
    resources: Resources = Resources()
    checkpoint_s: float = CHECKPOINT_S
    checkpoint_minutes: float = 5.0
    """Within an epoch, a checkpoint is written if the last one is older than this."""

    continues: dict[str, str] = field(default_factory=dict)
    """For trials that continue a shorter one: id -> the shorter trial's id."""

    trained: frozenset[str] = frozenset()
    """The ids of trials whose weights are final, so that only their evaluation is missing."""

    tags: dict[str, str] = field(default_factory=dict)
    """The tags of this launch, which the results record."""


def demand_of(sweep: Sweep) -> Demand:
    """The requirements of a sweep's trials."""
    stop = sweep.search.stop if sweep.search else None
    return Demand(evaluate=sweep.evaluate, limits=sweep.limits, stop=stop)


def options_for(sweep: Sweep, *, cpu: bool = False) -> RunOptions:
    """The options of running a sweep's trials, from its file; without a GPU if `cpu`."""
    resources = sweep.resources
    if cpu:
        resources = resources.model_copy(update={"gpus": 0.0})
    return RunOptions(
        data_root(),
        resources,
        checkpoint_minutes=sweep.checkpoint_minutes,
        **vars(demand_of(sweep)),
    )
