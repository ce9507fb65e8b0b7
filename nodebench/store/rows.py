"""Rows of a trial's files: an epoch, a point at which the trained model was evaluated, a timing."""

from __future__ import annotations

from typing import Any

from nodebench.errors import TrialOutcome, counted
from nodebench.spec.vocabulary import GRADIENT_ERROR_NUMBERS

Row = dict[str, Any]

INCIDENTAL = frozenset(
    {"epoch_s", "peak_memory_bytes", "time", "forward_s", "measuring_s", "seconds", "memory_bytes"}
)
"""Metrics that depend on the machine and the moment, so that reruns of a trial differ in them."""

NUMERICAL_ERRORS = ("solver_error", "order", *GRADIENT_ERROR_NUMBERS, "gradient_cosine")
"""The measures of a point in comparison with a reference."""

ERRORS_OUTCOME = "errors_outcome"
"""The outcome of measuring a finished point's errors, if that failed; `limit` then refers to it."""

ERRORS_RULE = 3
"""The version of the rule by which errors are measured, stored in each row of a point.

Increment it if the rule changes: errors by an older rule are left out and measured again, and the
accuracy is kept. 2: references grow, and errors close to the references' own are not reported.
3: each error is measured by the coarsest reference that suffices, whatever was measured before.
"""

BUSY = 0.5
"""The load, in running processes, above which a machine is not idle enough for a timing pass."""


def is_current(point: Row) -> bool:
    """Whether a point's errors, if it can have any, were measured by the present rule."""
    has_none = point["outcome"] != TrialOutcome.FINISHED or point.get("nfe") == 0
    return has_none or point.get("errors_rule") == ERRORS_RULE


def without_errors(point: Row) -> Row:
    """A point's row without its errors and the outcome of their measurement."""
    left_out = {*NUMERICAL_ERRORS, ERRORS_OUTCOME}
    if ERRORS_OUTCOME in point:
        left_out.add("limit")
    return {name: value for name, value in point.items() if name not in left_out}


def ending(point: Row) -> str:
    """The outcome of measuring a point, or of its errors if only these failed."""
    return str(point.get(ERRORS_OUTCOME, point["outcome"]))


def machine_text(environment: Row) -> str:
    """A machine in words, as far as it is known, such as `AMD EPYC, 1 thread, torch 2.15.0`."""
    threads = environment.get("threads")
    words = [
        environment.get("hardware"),
        counted(int(threads), "thread") if threads else None,
        f"torch {environment['torch']}" if "torch" in environment else None,
    ]
    return ", ".join(str(word) for word in words if word) or "unknown machine"


def machine_of(timing: Row) -> tuple[object, ...]:
    """The kind of machine of a timing: times of different kinds cannot be compared."""
    return tuple(timing[name] for name in ("hardware", "device", "threads", "torch"))
