"""A trial's result, and its state in the store."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from nodebench.errors import TrialOutcome


class TrialState(StrEnum):
    """A trial's state in the store."""

    NEW = "new"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    """The code crashed; the trial is retried."""

    DONE = "done"
    """It has a result, even if that is a failure."""


@dataclass(frozen=True)
class Result:
    """How a trial ended.

    `outcome` is a `TrialOutcome`, or an outcome of a newer release. `epoch` counts complete epochs.
    `limit` is the limit that was hit, if any. `recipe` is the trial's `recipe_id`. `environments`
    has one entry for each machine or version that took part. `started` is the start of the first
    attempt that this one resumed; `trained_s` is the time of training in all of these attempts, or
    None if an earlier release wrote the result.
    """

    outcome: str
    reason: str
    epoch: int
    summary: dict[str, float]
    environments: list[dict[str, Any]]
    started: float
    finished: float
    limit: float | None = None
    recipe: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    trained_s: float | None = None

    @property
    def seconds(self) -> float:
        """The time of training; for an older result, from its last attempt's start to its end."""
        # A clock that was set back must not give a negative duration.
        since = max(0.0, self.finished - self.started)
        return since if self.trained_s is None else self.trained_s

    @property
    def is_finished(self) -> bool:
        """Whether the trial ended as planned, without a failure (DNF)."""
        return self.outcome == TrialOutcome.FINISHED

    @property
    def is_error(self) -> bool:
        """Whether the code failed: the trial is tried again. Every other outcome is a result."""
        return self.outcome == TrialOutcome.ERROR

    @property
    def distinct_environments(self) -> int:
        """The number of combinations of hardware, threads and versions, on whatever host."""
        kinds = [{name: e[name] for name in e if name != "host"} for e in self.environments]
        return sum(kind not in kinds[:i] for i, kind in enumerate(kinds))

    def __str__(self) -> str:
        if self.is_finished:
            return self.outcome
        if self.is_error:
            return "error"
        if self.outcome == TrialOutcome.STOPPED:
            return f"stopped (epoch {self.epoch})"
        return f"DNF ({self.outcome}, epoch {self.epoch + 1})"


def read_result(values: Any) -> Result | None:
    """A result as it was written, also by a newer release; None if missing or damaged."""
    known = {field.name for field in fields(Result)}
    try:
        return Result(**{name: value for name, value in values.items() if name in known})
    except (TypeError, AttributeError):
        return None
