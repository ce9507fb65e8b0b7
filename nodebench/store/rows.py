"""Rows of a trial's files: an epoch, a point at which the trained model was evaluated, a timing."""

from __future__ import annotations

from typing import Any

from nodebench.errors import TrialOutcome

Row = dict[str, Any]

INCIDENTAL = frozenset(
    {"epoch_s", "peak_memory_bytes", "time", "forward_s", "measuring_s", "seconds", "memory_bytes"}
)
"""Metrics of the machine and the moment, which another run of the same trial has otherwise."""

NUMERICAL_ERRORS = ("solver_error", "order", "gradient_error")
"""What is measured of a point against a reference."""

ERRORS_OUTCOME = "errors_outcome"
"""How the measurement of a finished point's errors ended, if not well; `limit` is then its own."""

ERRORS_RULE = 2
"""The number of the rule by which errors are measured, which each row of a point holds.

Raise it with a change of the rule: errors by an older one are left out and measured again, and the
accuracy beside them is kept. 2: references grow, and no error is told that is near their own.
"""

BUSY = 0.5
"""Load of a machine, in processes that run, above which it is not idle for a timing pass."""


def is_current(point: Row) -> bool:
    """Whether a point's errors, if it can have any, were measured by the present rule."""
    has_none = point["outcome"] != TrialOutcome.FINISHED or point.get("nfe") == 0
    return has_none or point.get("errors_rule") == ERRORS_RULE


def without_errors(point: Row) -> Row:
    """What is known of a point but for its errors and how their measurement ended."""
    left_out = {*NUMERICAL_ERRORS, ERRORS_OUTCOME}
    if ERRORS_OUTCOME in point:
        left_out.add("limit")
    return {name: value for name, value in point.items() if name not in left_out}


def ending(point: Row) -> str:
    """How the measurement of a point ended, of its errors if of these alone."""
    return str(point.get(ERRORS_OUTCOME, point["outcome"]))


def machine_text(environment: Row) -> str:
    """`AMD EPYC, 1 thread, torch 2.15.0`: what seconds depend on, as far as it is known."""
    threads = environment.get("threads")
    words = [
        environment.get("hardware"),
        f"{threads} thread{'' if threads == 1 else 's'}" if threads else None,
        f"torch {environment['torch']}" if "torch" in environment else None,
    ]
    return ", ".join(str(word) for word in words if word) or "unknown machine"


def machine_of(timing: Row) -> tuple[object, ...]:
    """The kind of machine that a timing is of: times of two kinds don't compare."""
    return tuple(timing[name] for name in ("hardware", "device", "threads", "torch"))
