"""How a trial ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nodebench.errors import Stopped

Row = dict[str, Any]

FINISHED = "finished"
ERROR = "error"

BUSY = 0.5
"""Load of a machine, in processes that run, above which it is not idle for a timing pass."""

INCIDENTAL = frozenset(
    {"epoch_s", "peak_memory_bytes", "time", "forward_s", "measuring_s", "seconds", "memory_bytes"}
)
"""Metrics of the machine and the moment, which another run of the same trial has otherwise."""


@dataclass(frozen=True)
class Result:
    """How a trial ended.

    `outcome` is `finished`, that of a `TrialFailure`, or `error` for a crash of the code, which
    is no result. `epoch` counts complete epochs. `limit` is the limit that was hit, if one was.
    `recipe` is the trial's `recipe_id`.
    `environments` has one entry, or one for each machine or version that took part.
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

    @property
    def is_result(self) -> bool:
        """Whether this answers the question that the trial asked, if only by a failure."""
        return self.outcome != ERROR

    def __str__(self) -> str:
        if self.outcome == FINISHED:
            return FINISHED
        if not self.is_result:
            return "error"
        if self.outcome == Stopped.outcome:
            return f"stopped (epoch {self.epoch})"
        return f"DNF ({self.outcome}, epoch {self.epoch + 1})"


def read_result(values: Any) -> Result | None:
    """A result as it was written; None where there is none, or its file is damaged."""
    try:
        return Result(**values)
    except TypeError:
        return None
