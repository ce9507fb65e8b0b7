"""How trials are put into words, for several verbs."""

from __future__ import annotations

from nodebench.planning.plan import Entry
from nodebench.sweep import Sweep


def line(sweep: Sweep, entry: Entry) -> str:
    """A trial: id, where it stands, what distinguishes it."""
    return f"{entry.trial.id}  {standing(entry):<12} {sweep.label(entry.trial)}"


def standing(entry: Entry) -> str:
    """Where a trial stands: its state, or how it ended."""
    if entry.continues and entry.state == "new":
        return "continue"
    if entry.state == "done" and entry.result is not None:
        if not entry.missing:
            return entry.result.outcome
        return "incomplete" if entry.is_finished else "goes on"
    return entry.state


def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `2.5 h`, `4 days`."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"
