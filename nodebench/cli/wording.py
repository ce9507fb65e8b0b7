"""How trials, verdicts and data sets are put into words, and into rows for scripts."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodebench.cleaning import KINDS, Item, Survey
from nodebench.data_settings import Dataset
from nodebench.doubts import doubts
from nodebench.estimate import Cost, Forecast, slots
from nodebench.identity import Trial
from nodebench.launch import Timed
from nodebench.merge import Merged
from nodebench.packing import obstacle, packs
from nodebench.planning import Entry, RunOptions
from nodebench.relatives import Change
from nodebench.store import Store
from nodebench.sweep import Sweep
from nodebench.trial_folder import BUSY, Result, Row
from nodebench.verdict import Verdict

if TYPE_CHECKING:
    from nodebench.data.load import Census
    from nodebench.repro import Comparison, Reproduction


MOST_NAMED = 4
"""Metrics in a line; of more, their number."""


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


def packing_text(trials: Sequence[Trial], options: RunOptions) -> str:
    """How many trials are trained together, and why others are not."""
    here = slots(options.resources, gpus=1)
    together = [len(pack) for pack in packs(trials, options, here)]
    packed = [size for size in together if size > 1]
    alone = len(trials) - sum(packed)
    if not packed:
        return f"no seeds are trained together{_because(trials)}"
    text = f"{sum(packed)} in {len(packed)} packs of up to {max(together)} seeds, {alone} alone"
    return text + _because(trials)


def _because(trials: Sequence[Trial]) -> str:
    reasons = sorted({why for trial in trials if (why := obstacle(trial.spec))})
    return f": {'; '.join(reasons)}" if reasons else ""


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
        entry.trial.cell.key: sweep.cell_label(entry.trial) for entry in entries if entry.missing
    }
    return "\n".join(f"  {label}: {cost_text(costs.get(cell))}" for cell, label in cells.items())


def cost_text(cost: Cost | None) -> str:
    """`about 3 min a trial (2.8 min to 3.4 min, from 8 steps of 6.1 ms)`."""
    if cost is None:
        return "unknown: with its first weights, a solve fails or has no end"
    ends = f"{duration(cost.low)} to {duration(cost.high)}, {cost.source}"
    return f"about {duration(cost.seconds)} a trial ({ends}){_growth(cost.grows)}"


def timed_text(sweep: Sweep, timed: Timed) -> str:
    """What a step and an epoch take, a line a cell, under a title that says where."""
    labels = {trial.id: sweep.cell_label(trial) for trial in sweep.trials}
    lines = []
    for row in list(timed.rows.values())[:1]:
        rounds = f"{row['rounds']} rounds of {row['steps']} steps"
        lines.append(f"{sweep.name}: {rounds} on {row['hardware']}, {row['threads']} threads")
        if row["load_before"] > BUSY:
            lines.append(
                f"the machine was busy before (load {row['load_before']:.1f}), so these are times "
                "of a shared machine: time it again when it idles"
            )
    lines += [f"  {labels[trial]}: {_step_text(row)}" for trial, row in timed.rows.items()]
    lines += [f"  {labels[trial]}: cannot be timed: {w}" for trial, w in timed.problems.items()]
    if timed.untimed:
        lines.append(f"{timed.untimed} cells have no finished trial with a checkpoint to time")
    return "\n".join(lines)


def _step_text(row: Row) -> str:
    from nodebench.report.tables import three_digits  # pandas, which `time` has imported

    step, least, most = (1e3 * row[name] for name in ("step_s", "step_s_least", "step_s_most"))
    step, least, most, epoch = map(three_digits, (step, least, most, row["timed_epoch_s"]))
    return f"{step} ms a step ({least} to {most}), {epoch} s an epoch"


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
    if found.unmatched:
        lines.append(f"not on record: {', '.join(found.unmatched[:MOST_NAMED])}{_and_more(found)}")
    lines += [f"{name}: {then} then, {now} now" for name, then, now in found.environments]
    lines.append(f"outcome: {found.outcomes[0]} then, {found.outcomes[1]} now")
    same = sum(metric.is_same_bits for metric in found.metrics)
    verdict = "reproduced" if found.agrees else "NOT reproduced"
    lines.append(f"{verdict}: {same} of {len(found.metrics)} metrics to the bit")
    return "\n".join(lines)


def _and_more(found: Reproduction) -> str:
    more = len(found.unmatched) - MOST_NAMED
    return f" and {more} more" if more > 0 else ""


def _likeness(metric: Comparison) -> str:
    if metric.is_same_bits:
        return "same bits"
    return "same to rounding" if metric.agrees else f"differs by {metric.now - metric.recorded:.3g}"


def merged_text(sweep: Sweep, folder: Path, merged: Merged) -> str:
    """What came of another store: a line of counts, and one for every trial that was left alone."""
    labels = {trial.id: sweep.label(trial) for trial in sweep.trials}
    counts: dict[str, Sequence[object]] = {
        "copied": merged.copied,
        "further there": merged.replaced,
        "with more points there": merged.extended,
        "no further there": merged.kept,
        "running, left alone": merged.running,
        "in conflict": merged.conflicts,
    }
    told = ", ".join(f"{len(trials)} {what}" for what, trials in counts.items() if trials)
    lines = [f"{folder}: {told or f'no trials of {sweep.name}'}"]
    lines += [f"{trial}  {'running':<12} {labels[trial]}" for trial in merged.running]
    for one in merged.conflicts:
        (name, (ours, theirs)), *more = one.metrics.items()
        and_more = f", and {len(more)} other metrics" if more else ""
        lines.append(
            f"{one.trial_id}  {'conflict':<12} {labels[one.trial_id]}: {name} is {ours} here "
            f"({_machine(one.ours)}) and {theirs} there ({_machine(one.theirs)}){and_more}; "
            "ours is kept"
        )
    return "\n".join(lines)


def _machine(result: Result) -> str:
    """Where a result comes from: `host, hardware, torch 2.15.0, 1 threads`."""
    where = result.environments[-1] if result.environments else {}
    words = [str(where[name]) for name in ("host", "hardware") if name in where]
    words += [f"torch {where['torch']}"] if "torch" in where else []
    words += [f"threads {where['threads']}"] if "threads" in where else []
    return ", ".join(words) or "unknown machine"


def size_text(size_bytes: int) -> str:
    """`1.2 GB`."""
    size, units = float(size_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def survey_text(found: Survey, held: list[str], *, removed: bool) -> str:
    """A table of what can go, by kind, and what of it goes."""
    lines = [f"{'':<36} {'there are':>22}   {'to be removed':>22}"]
    for kind, what in KINDS.items():
        columns = [
            [item for item in items if item.kind == kind] for items in (found.items, found.chosen)
        ]
        lines.append(f"{what:<36} {_count(columns[0])}   {_count(columns[1])}")
    total = f"of {size_text(found.size_bytes)} in all"
    lines.append(f"{total:<36} {_count(found.items)}   {_count(found.chosen)}")
    lines += [f"`{name}` cannot be planned here: all its trials stay" for name in found.unreadable]
    lines += [f"{trial}  {'running':<12} was left alone" for trial in held]
    if found.chosen:
        lines.append("removed" if removed else "nothing was removed: `--delete` does")
    return "\n".join(lines)


def _count(items: Sequence[Item]) -> str:
    return f"{len(items):>10,} {size_text(sum(item.size_bytes for item in items)):>11}"


def survey_json(found: Survey, held: list[str], *, removed: bool) -> str:
    """The same for scripts, item by item."""
    rows = [
        {
            "kind": item.kind,
            "trial": item.trial_id,
            "paths": [str(path) for path in item.paths],
            "bytes": item.size_bytes,
            "used": item.used,
            "chosen": item in found.chosen,
            "removed": removed and item in found.chosen and item.trial_id not in held,
        }
        for item in found.items
    ]
    return json.dumps({"bytes": found.size_bytes, "items": rows, "unreadable": found.unreadable})


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
    return json.dumps(
        {"sweep": sweep.name, "trials": rows, "orphans": left, "doubts": doubts(sweep)}
    )
