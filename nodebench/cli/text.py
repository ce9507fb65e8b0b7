"""Trials, counts and durations in words, for several commands."""

from __future__ import annotations

import re

from nodebench.planning.plan import Entry, Standing
from nodebench.sweep import Sweep


def line(sweep: Sweep, entry: Entry) -> str:
    """A trial in one line: its id, its standing and its label."""
    return f"{entry.trial.id}  {standing_text(entry):<12} {sweep.label(entry.trial)}"


STANDING_WORDS: dict[str, str] = {Standing.CONTINUES: "continue"}
"""Standings that are not printed as their values."""


def standing_text(entry: Entry) -> str:
    """A trial's standing: its state, or its outcome."""
    return STANDING_WORDS.get(entry.standing, str(entry.standing))


def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `110 min`, `2.5 h`, `400 days`: two digits, without an exponent."""
    units = (("days", 86400), ("h", 3600), ("min", 60), ("s", 1))
    unit, size = next(each for each in units if seconds >= 2 * each[1] or each[1] == 1)
    return f"{float(f'{seconds / size:.2g}'):g} {unit}"


def first_sentence(text: str) -> str:
    """A text up to its first full stop before a capital; `et al. 2021` does not end one."""
    plain = " ".join(text.split())
    return re.split(r"(?<=[.!?])(?<!al\.)\s+(?=[A-Z])|(?<=[.!?]\))\s+(?=[A-Z])", plain)[0]
