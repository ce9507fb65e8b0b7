"""What a sweep will cost, from what has been trained and from what has been probed."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from nodebench.identity import Trial, canonical
from nodebench.plan import Entry
from nodebench.store import Store
from nodebench.sweepfile import Resources
from nodebench.trial_folder import Result, Row


@dataclass(frozen=True)
class Cost:
    """Seconds that one trial takes, between `low` and `high`; `source` says how that is known.

    `grows` marks a lower bound: an adaptive solver's evaluations grow as its field is trained.
    """

    seconds: float
    low: float
    high: float
    source: str
    grows: bool = False


@dataclass(frozen=True)
class Forecast:
    """Seconds on the wall until a sweep is done, between `low` and `high`.

    Of `known` missing trials the cost is known; `unknown` others are taken for their mean.
    """

    seconds: float
    low: float
    high: float
    known: int
    unknown: int
    grows: bool


def cell_of(trial: Trial) -> str:
    """What trials of the same cost share: all settings but the seed."""
    return canonical({path: value for path, value in trial.settings.items() if path != "seed"})


def recorded_costs(entries: Sequence[Entry], store: Store, hardware: str | None) -> dict[str, Cost]:
    """What trials took so far, by cell; on `hardware` only, if that is given."""
    found: dict[str, list[float]] = {}
    for entry in entries:
        if hardware is not None and not _was_on(entry.result, hardware):
            continue
        history = store.folder(entry.trial.id).history()
        if history and (entry.is_finished or entry.result is None):
            rows = store.folder(entry.trial.id).evaluations()
            seconds = _training(entry, history) + sum(row.get("measuring_s", 0.0) for row in rows)
            found.setdefault(cell_of(entry.trial), []).append(seconds)
    return {cell: _cost(seconds) for cell, seconds in found.items()}


def _cost(seconds: list[float]) -> Cost:
    source = f"from {len(seconds)} trained" if len(seconds) > 1 else "from one trained"
    return Cost(statistics.median(seconds), min(seconds), max(seconds), source)


def _was_on(result: Result | None, hardware: str) -> bool:
    return result is not None and any(e.get("hardware") == hardware for e in result.environments)


def _training(entry: Entry, history: Sequence[Row]) -> float:
    """Seconds from start to end, without the time that an interrupted trial lay still."""
    times = [row["time"] for row in history]
    steps = [after - before for before, after in pairwise(times)]
    per_epoch: float = statistics.median(steps) if steps else history[0].get("epoch_s", 0.0)
    return per_epoch * (entry.trial.spec.train.epochs or len(times))


def forecast(
    entries: Sequence[Entry], costs: Mapping[str, Cost], store: Store, slots: int
) -> Forecast | None:
    """When the missing trials will be done, `slots` side by side; None if nothing is known."""
    left = [entry for entry in entries if entry.missing]
    known = [(entry, costs.get(cell_of(entry.trial))) for entry in left]
    found = [(entry, cost) for entry, cost in known if cost is not None]
    if not found:
        return None
    seconds = [_remaining(entry, cost, store) for entry, cost in found]
    unknown = len(left) - len(found)
    total = sum(seconds) + unknown * statistics.fmean(cost.seconds for _, cost in found)
    wall = max(*seconds, total / min(slots, len(left)), 0.0)
    middle = sum(cost.seconds for _, cost in found) or 1.0
    least, most = (sum(getattr(cost, end) for _, cost in found) / middle for end in ("low", "high"))
    grows = any(cost.grows for _, cost in found)
    return Forecast(wall, wall * least, wall * most, len(found), unknown, grows)


def _remaining(entry: Entry, cost: Cost, store: Store) -> float:
    """What is still to come of a trial's cost; its evaluation alone is taken for nothing."""
    if entry.is_trained:
        return 0.0
    trained = entry.continues or entry.trial.id
    length, history = entry.trial.spec.train.epochs, store.folder(trained).history()
    begun = history[-1]["epoch"] / length if history and length else 0.0
    return cost.seconds * (1 - begun)


def slots(resources: Resources, gpus: int) -> int:
    """How many trials run side by side on a machine with so many GPUs."""
    by_cpu = (os.cpu_count() or 1) // resources.cpus
    by_gpu = math.floor(gpus / resources.gpus) if resources.gpus else by_cpu
    return max(1, min(by_cpu, by_gpu))
