"""Trials, durations, costs and changes in words."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

from nodebench.errors import MOST_LISTED, TrialOutcome, counted
from nodebench.planning.diff import Change
from nodebench.planning.estimate import Cost, Forecast
from nodebench.planning.plan import Entry, Standing
from nodebench.store import Store
from nodebench.store.result import TrialState
from nodebench.sweep import Sweep


def line(sweep: Sweep, entry: Entry) -> str:
    """A trial in one line: its id, its standing and its label."""
    return f"{entry.trial.id}  {standing_text(entry):<12} {sweep.label(entry.trial)}"


STANDING_WORDS: dict[str, str] = {
    Standing.CONTINUES: "continue",
    TrialOutcome.EVALUATION_LIMIT: "nfe limit",
    TrialOutcome.DEADLINE: "time limit",
    TrialOutcome.RANDOM_FIELD: "random field",
}
"""Standings that are not printed as their values."""


def standing_text(entry: Entry) -> str:
    """A trial's standing: its state, or its outcome."""
    return STANDING_WORDS.get(entry.standing, str(entry.standing))


def endings_text(entries: Sequence[Entry]) -> list[str]:
    """What to do about trials that crashed, and about results that are failures (DNF)."""
    ended = [each for each in entries if each.result is not None and not each.is_finished]
    crashed = [each for each in ended if each.state == TrialState.FAILED]
    failed = [each for each in ended if not each.missing and each.standing != TrialOutcome.STOPPED]
    lines = []
    if crashed:
        traceback = f"`nodebench logs {crashed[0].trial.id}` prints the traceback"
        again = f"`nodebench run` repeats {'it' if len(crashed) == 1 else 'them'}"
        lines.append(f"{counted(len(crashed), 'trial')} crashed: {traceback}; {again}")
    if failed:
        again = f"`nodebench run --retry-failed` repeats {'it' if len(failed) == 1 else 'them'}"
        what = f"{counted(len(failed), 'trial')} did not finish (DNF), which is a result"
        lines.append(f"{what}: {again}")
    return lines


def store_text(store: Store) -> str:
    """The store that a sweep is compared with, by a short path if in the working folder."""
    root, here = store.root, Path.cwd()
    shown = root.relative_to(here) if root.is_relative_to(here) else root
    return f"compared with the store `{shown}`"


def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `110 min`, `2.5 h`, `400 days`: two digits, without an exponent."""
    units = (("days", 86400), ("h", 3600), ("min", 60), ("s", 1))
    unit, size = next(each for each in units if seconds >= 2 * each[1] or each[1] == 1)
    return f"{float(f'{seconds / size:.2g}'):g} {unit}"


def cost_text(cost: Cost | str) -> str:
    """`about 3 min per trial (2.8 min to 3.4 min, from 8 steps of 6.1 ms)`."""
    if isinstance(cost, str):
        return f"unknown: {cost}"
    ends = f"{duration(cost.low)} to {duration(cost.high)}, {cost.source}"
    return f"about {duration(cost.seconds)} per trial ({ends}){_caveats(cost)}"


def forecast_text(found: Forecast, *, is_running: bool = True) -> str:
    """`about 3 h left, until Sat 21:40 (2.5 h to 3.4 h)`; no end time if nothing is running."""
    text = f"about {duration(found.seconds)} left"
    if is_running:
        end = time.localtime(time.time() + found.seconds)
        text += f", until {time.strftime('%a %H:%M', end)}"
    low, high = duration(found.low), duration(found.high)
    notes = [f"{low} to {high}"] if low != high else []
    if found.unknown:
        unknown = counted(found.unknown, "trial")
        notes.append(f"{unknown} of unknown cost assumed to be like the others")
    return text + (f" ({'; '.join(notes)})" if notes else "") + _caveats(found)


def _caveats(found: Cost | Forecast) -> str:
    """Why it may take longer."""
    unmeasured = (
        "; without evaluation points that no trial has measured yet" if found.unmeasured else ""
    )
    grows = "; a lower bound: adaptive solvers need more evaluations later" if found.grows else ""
    return unmeasured + grows


def first_sentence(text: str) -> str:
    """A text up to its first full stop before a capital; `et al. 2021` does not end one."""
    plain = " ".join(text.split())
    return re.split(r"(?<=[.!?])(?<!al\.)\s+(?=[A-Z])|(?<=[.!?]\))\s+(?=[A-Z])", plain)[0]


def change_text(found: Change) -> str:
    """The changes between two versions of a sweep file; trials with the same ones have a line."""
    same = counted(found.same, "trial")
    lines = [f"{same} unchanged, {len(found.new)} new, {len(found.gone)} removed"]
    lines += [f"changed: {name}" for name in found.fields]
    groups: dict[str, list[str]] = {}
    for trial, (label, apart) in found.new.items():
        reason = "; ".join(each.as_change for each in apart)
        groups.setdefault(reason, []).append(f"{trial}  {label}")
    without_pair = groups.pop("", [])
    for reason, trials in groups.items():
        which = trials[0] if len(trials) == 1 else f"{len(trials)} trials"
        lines.append(f"+ {which}  ({reason})")
    gone = [f"{trial}  {label}" for trial, label in found.gone.items()]
    return "\n".join([*lines, *_first("+", without_pair), *_first("-", gone)])


def _first(sign: str, trials: Sequence[str]) -> list[str]:
    """A line for each of the first trials, and one for the number of the others."""
    more = len(trials) - MOST_LISTED
    rest = [f"{sign} and {more} more"] if more > 0 else []
    return [*(f"{sign} {trial}" for trial in trials[:MOST_LISTED]), *rest]
