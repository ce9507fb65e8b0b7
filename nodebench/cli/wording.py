"""How trials, verdicts and data sets are put into words, and into rows for scripts."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from nodebench.data_settings import Dataset
from nodebench.estimate import Cost, Forecast, cell_of
from nodebench.plan import Entry
from nodebench.relatives import Change
from nodebench.store import Store
from nodebench.sweep import Sweep
from nodebench.verdict import Verdict

if TYPE_CHECKING:
    from nodebench.data.load import Census
    from nodebench.repro import Comparison, Reproduction


def line(sweep: Sweep, entry: Entry) -> str:
    """A trial: id, where it stands, what distinguishes it."""
    return f"{entry.trial.id}  {standing(entry):<12} {sweep.label(entry.trial)}"


def standing(entry: Entry) -> str:
    """Where a trial stands: its state, or how it ended."""
    if entry.continues:
        return "continue"
    if entry.state == "done" and entry.result is not None:
        return entry.result.outcome if not entry.missing else "incomplete"
    return entry.state


def detail(entry: Entry, store: Store) -> str:
    """Why a trial ended, or how far it is."""
    if entry.result is not None:
        return f": {entry.result.reason or 'trained'} ({_clock(entry.result.finished)})"
    history = store.folder(entry.trial.id).history()
    if not history:
        return ""
    train, last = entry.trial.spec.train, history[-1]
    length = f" of {train.epochs}" if train.epochs else ""
    return f": epoch {last['epoch']}{length} ({_clock(last['time'])})"


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def census_row(data_set: Dataset, found: Census) -> dict[str, Any]:
    """A data set for scripts."""
    classes = zip(found.class_names, found.train, found.test, strict=True)
    return {
        "name": data_set.name,
        "origin": data_set.origin,
        "folder": str(found.folder) if found.folder else None,
        "train": sum(found.train),
        "test": sum(found.test),
        "classes": [{"name": name, "train": a, "test": b} for name, a, b in classes],
    }


def census_text(data_set: Dataset, found: Census) -> str:
    """A line for the data set, and one for every class, or for all if they are equally large."""
    place = f"in {found.folder}" if found.folder else f"{data_set.origin}, no files needed"
    if not found.class_names:
        return f"{data_set.name}: {place}"
    title = f"{data_set.name}: {sum(found.train):,} train, {sum(found.test):,} test; {place}"
    rows = list(zip(found.class_names, found.train, found.test, strict=True))
    if len(set(found.train)) == len(set(found.test)) == 1:
        rows = [(f"each of {len(rows)} classes", *rows[0][1:])]
    width = max(len("class"), *(len(name) for name, _, _ in rows))
    lines = [f"  {'class':<{width}}  {'train':>7}  {'test':>6}"]
    lines += [f"  {name:<{width}}  {train:>7,}  {test:>6,}" for name, train, test in rows]
    return "\n".join([title, *lines])


def verdict_text(judged: Verdict) -> str:
    """`ResNet in disguise (own 0.99, limit 0.5, drop 0.49)`."""
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in judged.numbers.items())
    reason = f": {judged.reason}" if judged.reason else ""
    return f"{judged.word}{reason} ({numbers})" if numbers else f"{judged.word}{reason}"


def change_text(found: Change) -> str:
    """What changed from one form of a sweep's file to another."""
    lines = [f"{found.same} trials stay, {len(found.new)} are new, {len(found.gone)} are gone"]
    lines += [f"changed: {name}" for name in found.fields]
    for trial, (label, apart) in found.new.items():
        reason = "; ".join(map(str, apart))
        lines.append(f"+ {trial}  {label}" + (f"  ({reason})" if reason else ""))
    lines += [f"- {trial}  {label}" for trial, label in found.gone.items()]
    return "\n".join(lines)


def costs_text(sweep: Sweep, entries: list[Entry], costs: dict[str, Cost]) -> str:
    """What a trial of each missing cell costs, a line a cell."""
    cells = {
        cell_of(entry.trial): sweep.cell_label(entry.trial) for entry in entries if entry.missing
    }
    return "\n".join(f"  {label}: {cost_text(costs[cell])}" for cell, label in cells.items())


def cost_text(cost: Cost) -> str:
    """`about 3 min a trial (2.8 min to 3.4 min, from 8 steps of 6.1 ms)`."""
    ends = f"{duration(cost.low)} to {duration(cost.high)}, {cost.source}"
    return f"about {duration(cost.seconds)} a trial ({ends}){_growth(cost.grows)}"


def forecast_text(found: Forecast) -> str:
    """`about 3 h to go, until Sat 21:40 (2.5 h to 3.4 h)`."""
    end = time.strftime("%a %H:%M", time.localtime(time.time() + found.seconds))
    ends = f"{duration(found.low)} to {duration(found.high)}"
    if found.unknown:
        ends += f"; {found.unknown} trials of unknown cost are taken to be like the others"
    return f"about {duration(found.seconds)} to go, until {end} ({ends}){_growth(found.grows)}"


def _growth(grows: bool) -> str:
    return "; more, as adaptive solvers' evaluations grow in training" if grows else ""


def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `2.5 h`, `4 days`."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"


def reproduction_text(found: Reproduction) -> str:
    """A metric a line, recorded and now, and what to make of it."""
    width = max((len(metric.name) for metric in found.metrics), default=0)
    lines = [
        f"{m.name:<{width}}  {m.recorded:<22.17g} {m.now:<22.17g} {_likeness(m)}"
        for m in found.metrics
    ]
    lines += [f"{name}: {then} then, {now} now" for name, then, now in found.environments]
    if found.outcomes[0] != found.outcomes[1]:
        lines.append(f"outcome: {found.outcomes[0]} then, {found.outcomes[1]} now")
    same = sum(metric.is_same_bits for metric in found.metrics)
    verdict = "reproduced" if found.agrees else "NOT reproduced"
    lines.append(f"{verdict}: {same} of {len(found.metrics)} metrics to the bit")
    return "\n".join(lines)


def _likeness(metric: Comparison) -> str:
    if metric.is_same_bits:
        return "same bits"
    return "same to rounding" if metric.agrees else f"differs by {metric.now - metric.recorded:.3g}"


def plan_json(sweep: Sweep, entries: list[Entry], orphans: dict[str, str]) -> str:
    """A plan for scripts."""
    rows: list[dict[str, Any]] = [
        {
            "id": entry.trial.id,
            "label": sweep.label(entry.trial),
            "state": entry.state,
            "outcome": entry.result.outcome if entry.result else None,
            "missing": entry.missing,
            "continues": entry.continues,
            "settings": entry.trial.settings,
        }
        for entry in entries
    ]
    left = [{"id": trial_id, "label": label} for trial_id, label in orphans.items()]
    return json.dumps({"sweep": sweep.name, "trials": rows, "orphans": left})
