"""What a report says of its sweep's size, where that is not the full one."""

from __future__ import annotations

from collections.abc import Container, Sequence

from nodebench.spec.identity import canonical
from nodebench.sweep import Sweep

OPENING_OF_SMALL = (
    "This is the small form of the sweep: its numbers are not those of the full size."
)
LENGTH_PATHS = ("train.epochs", "train.iterations")
SCALED_WITH_LENGTH = ("train.schedule.at",)
"""What is not told, as it is in proportion to the length."""
EQUAL_GRADIENTS = {"backprop", "recompute", "exact"}
"""Which are the same to rounding, so that one in place of another is no doubt."""


def opening(sweep: Sweep) -> str:
    """What a page begins with; nothing of the full size."""
    if sweep.made.size != "medium":
        return OPENING_OF_SMALL if sweep.made.size == "small" else ""
    return (
        f"This is the medium form of the sweep: {caveat(sweep)}. Its numbers are still compared "
        "with the study's, and each comparison names this caveat."
    )


def caveat(sweep: Sweep, ids: Container[str] | None = None) -> str:
    """Why numbers of a medium form may not be the study's: `at 10 of 100 epochs`.

    That is which settings its trials, or those of these ids, have in place of the study's. Nothing
    of other sizes: the full one is the study's, and the small one not to be compared.
    """
    trials = [trial for trial in sweep.trials if ids is None or trial.id in ids]
    parts = []
    for path, theirs in sweep.made.instead.items() if sweep.made.size == "medium" else ():
        known = set(map(canonical, theirs))
        values = [trial.settings[path] for trial in trials if path in trial.settings]
        found = {canonical(value): value for value in values}
        ours = [value for text, value in found.items() if text not in known]
        if (
            ours
            and path not in SCALED_WITH_LENGTH
            and not {*map(str, (*ours, *theirs))} <= EQUAL_GRADIENTS
        ):
            parts.append(_substitution_text(path, ours, theirs))
    return ", ".join(sorted(parts))


def _substitution_text(path: str, ours: Sequence[object], theirs: Sequence[object]) -> str:
    if path in LENGTH_PATHS and len(ours) == len(theirs) == 1:
        return f"at {ours[0]} of {theirs[0]} {path.rpartition('.')[2]}"
    told = f"with `{path}` {_values_text(ours)}"
    return f"{told} instead of {_values_text(theirs)}" if theirs else told


def _values_text(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
