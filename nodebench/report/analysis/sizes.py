"""The remarks of a report on its sweep's size, if that is not the full one."""

from __future__ import annotations

from collections.abc import Container, Sequence

from nodebench.spec.identity import canonical
from nodebench.sweep import Sweep

OPENING_OF_SMALL = (
    "This is the small form of the sweep: its numbers are not those of the full size."
)
DESCRIBED = "Its description is that of the full size, and ends with what this form changes."
LENGTH_PATHS = ("train.epochs", "train.iterations")
SCALED_WITH_LENGTH = ("train.schedule.at",)
"""Settings that are proportional to the length, and therefore not mentioned."""
EQUAL_GRADIENTS = {"backprop", "recompute", "exact"}
"""Gradients that are equal up to rounding, so that replacing one by another is not mentioned."""


def opening(sweep: Sweep) -> str:
    """The remark that opens a page; empty for the full size."""
    if sweep.made.size != "medium":
        return f"{OPENING_OF_SMALL} {DESCRIBED}" if sweep.made.size == "small" else ""
    if not (doubt := caveat(sweep)):
        return f"This is the medium form of the sweep: some of its trials. {DESCRIBED}"
    return (
        f"This is the medium form of the sweep: {doubt}. Claims and published numbers are judged "
        f"all the same, and each result names this caveat. {DESCRIBED}"
    )


def caveat(sweep: Sweep, ids: Container[str] | None = None) -> str:
    """Why numbers of a medium form may not be the study's: `at 10 of 100 epochs`.

    It lists the settings that the trials, or only those with these ids, have instead of the
    study's. It is empty for the full size, which is the study's, and for the small size, which is
    not to be compared.
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
