"""Estimates the cost of a sweep, from trained and from probed trials."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import mul
from typing import NamedTuple

from nodebench.planning.available_resources import cpu_count
from nodebench.planning.plan import Entry
from nodebench.spec.point import EvaluationPoint, known_point
from nodebench.store import Result, Store
from nodebench.store.rows import Row
from nodebench.sweep.file import Resources

LONG_EPOCH_S = 60.0
"""The seconds from which on a first epoch tells about later ones, although it has to compile."""


@dataclass(frozen=True)
class Cost:
    """The seconds that one trial takes, between `low` and `high`; `source` says how this is known.

    `grows` marks a lower bound: an adaptive solver's evaluations grow as its field is trained.
    `evaluating` is the part of the `seconds` that follows training; it is too small if some points
    are `unmeasured`: no trial has measured them.
    """

    seconds: float
    low: float
    high: float
    source: str
    grows: bool = False
    evaluating: float = 0.0
    unmeasured: bool = False


@dataclass(frozen=True)
class Forecast:
    """The wall-clock seconds until a sweep is done, between `low` and `high`.

    The cost of `known` missing trials is known; `unknown` others are assumed to cost their mean,
    at least their least and at most their most. `grows` and `unmeasured` are those of a `Cost`.
    """

    seconds: float
    low: float
    high: float
    known: int
    unknown: int
    grows: bool
    unmeasured: bool = False


def recorded_costs(entries: Sequence[Entry], store: Store, hardware: str | None) -> dict[str, Cost]:
    """The costs of trials so far, by the key of their cell; only on `hardware`, if given."""
    found: dict[str, list[_Taken]] = {}
    for entry in entries:
        if hardware is not None and not _was_on(entry.result, hardware):
            continue
        history = store.folder(entry.trial.id).history()
        if (entry.is_finished or entry.result is None) and _shows_speed(entry, history):
            points = _points(entry, store)
            seconds, unmeasured = sum(points.values()), not entry.wanted <= points.keys()
            training = _training(entry, history) / _packed(entry, store)
            taken = _Taken(training, seconds, unmeasured)
            found.setdefault(entry.trial.cell.key, []).append(taken)
    return {cell: _cost(taken) for cell, taken in found.items()}


class _Taken(NamedTuple):
    """The seconds that a trial took, and whether it lacks some points."""

    training: float
    evaluating: float
    unmeasured: bool


def _cost(taken: list[_Taken]) -> Cost:
    source = f"from {len(taken)} trained" if len(taken) > 1 else "from one trained"
    training = [each.training for each in taken]
    whole = [each.evaluating for each in taken if not each.unmeasured]
    unmeasured = not whole
    evaluating = statistics.median(whole) if whole else max(each.evaluating for each in taken)
    middle, low, high = (
        seconds + evaluating
        for seconds in (statistics.median(training), min(training), max(training))
    )
    return Cost(middle, low, high, source, evaluating=evaluating, unmeasured=unmeasured)


def _was_on(result: Result | None, hardware: str) -> bool:
    return result is not None and any(e.get("hardware") == hardware for e in result.environments)


def _shows_speed(entry: Entry, history: Sequence[Row]) -> bool:
    """Whether a trial's epochs tell how long a training takes.

    The first one includes compilation, for some ten seconds on a new machine. If it is the only one
    so far, it must be long in comparison.
    """
    if entry.is_finished or len(history) != 1:
        return bool(history)
    return bool(history[0].get("epoch_s", 0.0) >= LONG_EPOCH_S)


def _training(entry: Entry, history: Sequence[Row]) -> float:
    """Seconds from start to end, without the time during which an interrupted trial was idle."""
    steps = [after["time"] - before["time"] for before, after in pairwise(history)]
    per_epoch: float = statistics.median(steps) if steps else history[0].get("epoch_s", 0.0)
    epochs = len(history) if entry.is_finished else len(history) / _part(entry, history)
    return per_epoch * epochs


def _part(entry: Entry, history: Sequence[Row]) -> float:
    """The part of a training that its history covers."""
    train, last = entry.trial.spec.train, history[-1]
    done, all_ = (
        (last["epoch"], train.epochs) if train.epochs else (last["iteration"], train.iterations)
    )
    return float(done / all_) if all_ else 1.0


def _packed(entry: Entry, store: Store) -> int:
    """The number of trials, including this one, that shared the time that it took."""
    if entry.result is None:
        return store.folder(entry.trial.id).packed
    here = entry.result.environments[-1] if entry.result.environments else {}
    return int(here.get("packed", 1))


def _points(entry: Entry, store: Store) -> dict[EvaluationPoint, float]:
    """The seconds that each measured point took, of those that the sweep requests."""
    rows = store.folder(entry.trial.id).evaluations() if entry.wanted else []
    seconds = {known_point(row): float(row.get("measuring_s", 0.0)) for row in rows}
    return {point: took for point, took in seconds.items() if point in entry.wanted}


def forecast(
    entries: Sequence[Entry], costs: Mapping[str, Cost], store: Store, slots: int
) -> Forecast | None:
    """The time until the missing trials are done, `slots` in parallel; None if nothing is known."""
    left = [entry for entry in entries if entry.missing]
    costs = _with_evaluations(costs)
    known = [(entry, costs.get(entry.trial.cell.key)) for entry in left]
    found = [(entry, cost) for entry, cost in known if cost is not None]
    if not found:
        return None
    seconds = [_remaining(entry, cost, store) for entry, cost in found]
    unknown = len(left) - len(found)
    of_found = [cost for _, cost in found]
    total = sum(seconds) + unknown * statistics.fmean(cost.seconds for cost in of_found)
    low, high = (
        sum(map(mul, seconds, (_ratio(getattr(cost, end), cost) for cost in of_found)))
        for end in ("low", "high")
    )
    low += unknown * min(cost.low for cost in of_found)
    high += unknown * max(cost.high for cost in of_found)
    wall = max(*seconds, total / min(slots, len(left)), 0.0)
    scale = wall / total if total else 0.0
    grows, unmeasured = (
        any(getattr(cost, name) for cost in of_found) for name in ("grows", "unmeasured")
    )
    return Forecast(wall, low * scale, high * scale, len(found), unknown, grows, unmeasured)


def _ratio(seconds: float, cost: Cost) -> float:
    return seconds / cost.seconds if cost.seconds else 1.0


def _with_evaluations(costs: Mapping[str, Cost]) -> dict[str, Cost]:
    """The costs, those without an evaluation with the mean of the others' evaluations."""
    whole = [cost.evaluating for cost in costs.values() if not cost.unmeasured]
    if not whole:
        return dict(costs)
    mean = statistics.fmean(whole)
    return {
        cell: _evaluated(cost, mean) if cost.unmeasured else cost for cell, cost in costs.items()
    }


def _evaluated(cost: Cost, evaluating: float) -> Cost:
    """A cost with an assumed time for evaluation, unless that took longer so far."""
    more = max(0.0, evaluating - cost.evaluating)
    return replace(
        cost,
        seconds=cost.seconds + more,
        low=cost.low + more,
        high=cost.high + more,
        evaluating=cost.evaluating + more,
        unmeasured=False,
    )


def _remaining(entry: Entry, cost: Cost, store: Store) -> float:
    """The remaining part of a trial's cost."""
    evaluating = max(0.0, cost.evaluating - sum(_points(entry, store).values()))
    if entry.is_trained:
        return evaluating
    return evaluating + (cost.seconds - cost.evaluating) * (1 - _begun(entry, store))


def _begun(entry: Entry, store: Store) -> float:
    """The part of a training that a checkpoint contains, and that need not be repeated."""
    folder = store.folder(entry.continues or entry.trial.id)
    if entry.is_finished or not folder.checkpoints():
        return 0.0  # a finished trial is retrained from scratch, although its history stays
    history = folder.history()
    return _part(entry, history) if history else 0.0


def slots(resources: Resources, *, gpus: float, cpus: float | None = None) -> int:
    """The number of trials that run at a time on these GPUs and CPUs, by default all CPUs here."""
    by_cpu = _places(cpu_count() if cpus is None else cpus, resources.cpus)
    by_gpu = _places(gpus, resources.gpu_share) if resources.gpu_share else by_cpu
    return max(1, min(by_cpu, by_gpu))


def _places(whole: float, share: float) -> int:
    """The number of shares in a whole: 5 of 0.2 in 1, although 1 // 0.2 is 4."""
    return math.floor(whole / share + 1e-9)
