"""Published numbers, from `published.yaml`, and the cells of sweeps that they belong to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import yaml
from pydantic import Field

from nodebench.expansion import agrees
from nodebench.part import Part
from nodebench.report.sizes import caveat
from nodebench.report.statistics import (
    column,
    critical,
    mean_and_interval,
    measured,
    whole,
)
from nodebench.spec import TrialSpec
from nodebench.sweep import Sweep
from nodebench.sweepfile import full_name
from nodebench.trial_folder import FINISHED

METRICS = {
    "test_accuracy": "test accuracy %",
    "parameters": "parameters",
    "epoch_s": "s/epoch, on their machine",
    "nfe_forward_mean": "NFE forward, mean over training",
}


class Published(Part):
    """One number that a study reports of one cell of a sweep.

    Accuracies are shares of 1. `spread` is the standard deviation that the study gives, over `n`
    trainings; `read_off` says that the number was digitised from a figure, to within 0.01.
    `under: limit` is the trained network's result under the finest solver, not under its own.
    """

    cell: dict[str, Any]
    metric: Literal["test_accuracy", "parameters", "epoch_s", "nfe_forward_mean"] = "test_accuracy"
    value: float
    spread: float | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    under: Literal["limit"] | None = None
    read_off: bool = False
    source: str

    def __str__(self) -> str:
        percent = 100 if self.metric == "test_accuracy" else 1
        text = (
            f"{self.value:,.0f}" if self.metric == "parameters" else f"{self.value * percent:.6g}"
        )
        known = [] if self.spread is None else [f"s.d. {self.spread * percent:.6g}"]
        known += [] if self.n is None else [f"n = {self.n}"]
        text += f" ({', '.join(known)})" if known else ""
        return f"~{text}" if self.read_off else text

    @property
    def what(self) -> str:
        """The metric in words."""
        return METRICS[self.metric] + (", at the limit" if self.under else "")


class Study(Part):
    """The published numbers of one sweep; they hold on the data set that it names."""

    data: str
    numbers: tuple[Published, ...]


@lru_cache
def studies() -> dict[str, Study]:
    """Sweep -> its published numbers."""
    text = (Path(__file__).parent / "published.yaml").read_text(encoding="utf-8")
    return {sweep: Study.model_validate(study) for sweep, study in yaml.safe_load(text).items()}


def about(sweep: str, spec: TrialSpec) -> list[Published]:
    """The numbers about a trial's cell; a smaller size has those of the full one."""
    study = studies().get(full_name(sweep))
    if study is None or study.data != spec.data.name:
        return []
    return [entry for entry in study.numbers if agrees(spec, entry.cell)]


@dataclass(frozen=True)
class Reading:
    """Ours less theirs, as text, and whether they match: or why that cannot be said."""

    difference: str
    word: str


READ_OFF = 0.01
"""How far a number that was digitised from a figure may be off."""


def reading(entry: Published, ours: pd.Series[float], obstacle: str = "") -> Reading:
    """Whether our seeds give the published number, taking both spreads into account.

    With theirs from several trainings, whether the 95 % interval of the difference of means
    (Welch) holds zero; of a single training, whether theirs could be one more of ours. `obstacle`
    is why there is nothing to compare.
    """
    if ours.empty:
        return Reading("–", "not run")
    percent = 100 if entry.metric == "test_accuracy" else 1
    difference = float(ours.mean()) - entry.value
    text = f"{difference:+,.0f}" if entry.metric == "parameters" else f"{difference * percent:+.4g}"
    if entry.metric == "epoch_s":
        obstacle = obstacle or "another machine"
    if not obstacle and entry.metric == "parameters":
        return Reading(text, "matches" if _is_rounded(ours.mean(), entry.value) else "differs")
    if not obstacle and len(ours) < 2:
        obstacle = "one seed"
    if obstacle:
        return Reading(text, f"not comparable: {obstacle}")
    doubt = _doubt(entry, ours) + (READ_OFF if entry.read_off else 0.0)
    word = "matches" if abs(difference) <= doubt else "differs"
    return Reading(f"{text} ± {doubt * percent:.3g}", word)


def _is_rounded(count: float, published: float) -> bool:
    """Whether a count is the published one, to the digits that this has."""
    digits = len(f"{published:.0f}".rstrip("0"))
    return float(f"{count:.{digits}g}") == published


def _doubt(entry: Published, ours: pd.Series[float]) -> float:
    """Half the 95 % interval of the difference."""
    n, variance = len(ours), float(ours.var(ddof=1))
    theirs = 0.0 if entry.spread is None else entry.spread**2
    if entry.spread is None or entry.n is None or entry.n < 2:
        # One more training: of ours, or of theirs where that is known to scatter more.
        return critical(n - 1) * math.sqrt(variance / n + max(variance, theirs))
    parts = variance / n, theirs / entry.n
    if sum(parts) == 0:
        return 0.0
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (n - 1) + parts[1] ** 2 / (entry.n - 1))
    return critical(freedom) * math.sqrt(sum(parts))


def shown(sweep: str, spec: TrialSpec) -> str:
    """The published test accuracy of a trial's cell, as a table shows it; empty if none is."""
    entries = about(sweep, spec)
    return ", ".join(str(e) for e in entries if e.metric == "test_accuracy" and not e.under)


def published_numbers(sweep: Sweep, frame: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """One row per published number of the sweep's cells: ours, theirs, and whether they match."""
    numbers: dict[tuple[str, str], tuple[Published, list[str]]] = {}
    for trial in sweep.trials:
        for entry in about(sweep.name, trial.spec):
            key = sweep.cell_label(trial), entry.what
            numbers.setdefault(key, (entry, []))[1].append(trial.id)
    rows = []
    for (cell, _), (entry, ids) in numbers.items():
        done = frame[frame["id"].isin(ids) & (frame["outcome"] == FINISHED)]
        values = _at_the_limit(judged, ids) if entry.under else column(done, entry.metric)
        values = values.dropna()
        found = reading(entry, values, obstacle(sweep) if entry.metric != "parameters" else "")
        doubt = caveat(sweep, ids) if entry.metric != "parameters" else ""
        rows.append(
            {
                "cell": cell,
                "what": entry.what,
                "ours": _ours(entry.metric, values),
                "n": str(len(values)),
                "published": str(entry),
                "difference": found.difference,
                "reading": _doubted(found.word, doubt),
                "source": entry.source,
            }
        )
    return pd.DataFrame(rows)


def _doubted(word: str, doubt: str) -> str:
    """What was compared, with what may be why."""
    return f"{word}: {doubt}" if doubt and word in ("matches", "differs") else word


def obstacle(sweep: Sweep) -> str:
    """Why the numbers of a sweep cannot be those of its study; empty if they can."""
    if sweep.made.size == "small":
        return "the small form"
    return "its cells were changed by `--set`" if sweep.made.has_other_cells else ""


def _ours(metric: str, values: pd.Series[float]) -> str:
    if metric == "test_accuracy":
        return measured("accuracy", values)
    return whole(values) if metric == "parameters" else mean_and_interval(values, 1)


def _at_the_limit(judged: pd.DataFrame, ids: list[str]) -> pd.Series[float]:
    """The headline metric of each trial under the finest solver."""
    if judged.empty:
        return pd.Series(dtype=float)
    return judged.loc[judged["trial"].isin(ids), "limit"].astype(float)
