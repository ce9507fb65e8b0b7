"""A running tally of a sweep's results: the best so far, and the number of failures."""

from __future__ import annotations

from nodebench.errors import TrialOutcome
from nodebench.store import Result
from nodebench.sweep import Sweep

MOST_DATA_SETS = 3
"""The largest number of data sets whose best result is named in a line."""


class Tally:
    """Counts results as they come in; trials on different data sets do not compete."""

    def __init__(self, sweep: Sweep):
        self._trials = {trial.id: trial for trial in sweep.trials}
        self._labels = {trial.id: sweep.label(trial) for trial in sweep.trials}
        self._names_data = "data.name" in sweep.varying
        self._best: dict[str, tuple[float, str]] = {}
        self.failed = 0

    def add(self, trial_id: str, result: Result | None) -> bool:
        """Counts a trial's result; returns whether the trial failed or has no result."""
        trial = self._trials[trial_id]
        if result is None or result.outcome not in (TrialOutcome.FINISHED, TrialOutcome.STOPPED):
            self.failed += 1
            return True
        value = result.summary.get(trial.spec.data.headline)
        if value is None or value != value or not result.is_finished:
            return False
        name, sign = trial.spec.data.name, 1 if trial.spec.data.higher_is_better else -1
        best = self._best.get(name)
        if best is None or sign * value > sign * best[0]:
            self._best[name] = value, trial_id
        return False

    @property
    def best(self) -> str:
        """`best so far: test accuracy 0.9730, tanh 8 · s0`; empty until a trial has finished."""
        found = []
        for name, (value, trial_id) in list(self._best.items())[:MOST_DATA_SETS]:
            metric = self._trials[trial_id].spec.data.headline.replace("_", " ")
            where = f" on {name}" if self._names_data else ""
            found.append(f"{metric}{where} {value:.4f}, {self._labels[trial_id]}")
        return f"best so far: {'; '.join(found)}" if found else ""
