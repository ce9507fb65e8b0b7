"""Runs a recorded trial again and compares the two runs, metric by metric."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nodebench.errors import InputError, TrialOutcome
from nodebench.execution.reproduction.metrics import failed_points, metrics_of, points_of
from nodebench.execution.reproduction.recorded_run import RecordedRun, in_words
from nodebench.planning import RunOptions
from nodebench.spec import Trial
from nodebench.store import Store
from nodebench.store.rows import Row
from nodebench.training.trial import run_trial

ALONE = {"packed": "1"}
"""The environment of a trial that is not in a pack, such as any trial that is run again."""

SAME_METRIC = 1e-6
"""Relative difference below which two metrics count as one number, rounded differently."""


@dataclass(frozen=True)
class Comparison:
    """One metric as it was recorded and as it came out now."""

    name: str
    recorded: float
    now: float

    @property
    def is_same_bits(self) -> bool:
        """Whether both values are the same number, or both nan."""
        return self.recorded == self.now or (math.isnan(self.recorded) and math.isnan(self.now))

    @property
    def agrees(self) -> bool:
        """Whether both values are the same up to rounding."""
        return self.is_same_bits or math.isclose(self.recorded, self.now, rel_tol=SAME_METRIC)


@dataclass(frozen=True)
class Reproduction:
    """A second run of a trial compared with the first.

    `environments` has the fields in which the machines differ, (name, then, now); `then` is None if
    the record lacks the field, as an older one may.
    """

    outcomes: tuple[str, str]
    metrics: list[Comparison]
    unmatched: list[str]
    """Metrics of the second run that the record lacks."""

    failed_points: list[str]
    """Recorded points that failed in the second run, each with its outcome."""

    unmeasured_points: list[str]
    """Recorded points that the second run left out, since the sweep does not ask for them."""

    environments: list[tuple[str, str | None, str]]

    @property
    def agrees(self) -> bool:
        """Whether the trial ended in the same way, with the same metrics up to rounding."""
        is_alike = self.outcomes[0] == self.outcomes[1] and not self.failed_points
        return is_alike and bool(self.metrics) and all(m.agrees for m in self.metrics)


def run_again(
    trial: Trial, record: RecordedRun, options: RunOptions, on_epoch: Callable[[Row], None]
) -> Reproduction:
    """Runs a trial again, from the beginning, in a temporary store.

    Raises:
        InputError: if the code fails, so that there is nothing to compare, or a search had stopped
            the trial.
    """
    if record.outcome == TrialOutcome.STOPPED:
        raise InputError(
            f"`{trial.id}` was stopped by its search, so it has no final result to compare with"
        )
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        result = run_trial(trial, store, options, on_epoch)
        if result.is_error:
            raise InputError(f"`{trial.id}` has no result here: {result.reason}")
        found = metrics_of(store.folder(trial.id))
        failed = failed_points(store.folder(trial.id))
    recorded_points = points_of(record.metrics)
    shared = [name for name in found if name in record.metrics]
    here = ALONE | in_words(result.environments[-1] if result.environments else {})
    before = ALONE | {name: value for name, value in record.environment.items() if value}
    return Reproduction(
        outcomes=(record.outcome, result.outcome),
        metrics=[Comparison(name, record.metrics[name], found[name]) for name in shared],
        unmatched=[name for name in found if name not in record.metrics],
        failed_points=[
            f"{where}: {outcome}" for where, outcome in failed.items() if where in recorded_points
        ],
        unmeasured_points=[p for p in recorded_points if p not in {*points_of(found), *failed}],
        environments=[
            (name, before.get(name), value)
            for name, value in here.items()
            if name != "host" and before.get(name) != value
        ],
    )
