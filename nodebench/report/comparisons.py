"""Cells of a sweep beside each other: the baseline, and what papers claim of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from nodebench.expansion import agrees, named_paths
from nodebench.identity import Trial
from nodebench.report.statistics import (
    FEWEST_PAIRS,
    Difference,
    half_width,
    holm,
    paired,
)
from nodebench.sweep import Sweep
from nodebench.sweepfile import Claim
from nodebench.trial_folder import FINISHED

SIGNIFICANT = 0.05
BETTER, WORSE, UNCLEAR, TOO_FEW = "better", "worse", "no clear difference", "too few seeds"
REPRODUCED, NOT_REPRODUCED, NOT_RUN = "reproduced", "**not reproduced**", "not run"


def partner(sweep: Sweep, trial: Trial, named: Mapping[str, Any]) -> Trial | None:
    """A trial of the cell that has what is `named` and is else as this one's.

    Settings that one of the two lacks, as a network without an ODE lacks a solver, do not count.
    None if no cell is like that, or several are.
    """
    having = [other for other in _one_each(sweep) if agrees(other.spec, named)]
    if len(having) > 1:
        apart = [p for p in sweep.varying if not _is_named(p, named_paths(named))]
        own = trial.cell.settings
        having = [
            other
            for other in having
            if all(
                own[p] == other.cell.settings[p]
                for p in apart
                if p in own and p in other.cell.settings
            )
        ]
    return having[0] if len(having) == 1 else None


def _one_each(sweep: Sweep) -> list[Trial]:
    """The first trial of every cell."""
    return list({trial.cell.key: trial for trial in reversed(sweep.trials)}.values())[::-1]


def _is_named(path: str, named: Sequence[str]) -> bool:
    """Whether a setting is named, or belongs to a group that is."""
    return any(path == name or path.startswith(f"{name}.") for name in named)


def by_seed(frame: pd.DataFrame, cell: str, metric: str) -> pd.Series[float]:
    """A metric of the finished trials of a cell, by seed."""
    rows = frame[(frame["cell"] == cell) & (frame["outcome"] == FINISHED)]
    values = rows.set_index("seed").get(metric, pd.Series(dtype=float))
    return pd.to_numeric(values, errors="coerce").dropna()


# ---------------------------------------------------------------------------------- baseline


@dataclass(frozen=True)
class Comparison:
    """A cell beside the baseline's, by the headline metric; `p` is corrected for their number."""

    cell: str
    baseline: str
    difference: Difference
    p: float
    reading: str


def against_baseline(sweep: Sweep, frame: pd.DataFrame) -> list[Comparison]:
    """Every cell that has a partner in the baseline, and seeds in common with it."""
    partners: dict[str, str] = {}
    pairs = {}
    data = sweep.trials[0].spec.data
    for trial in _one_each(sweep) if sweep.baseline else ():
        other = partner(sweep, trial, sweep.baseline)
        if other is not None and other.cell.key != trial.cell.key:
            cell, baseline = sweep.cell_label(trial), sweep.cell_label(other)
            partners[cell] = baseline
            pairs[cell] = tuple(by_seed(frame, name, data.headline) for name in (baseline, cell))
    found = compared_cells(pairs, higher_is_better=data.higher_is_better)
    return [replace(each, baseline=partners[each.cell]) for each in found]


def compared_cells(
    pairs: Mapping[str, tuple[pd.Series[float], ...]], *, higher_is_better: bool
) -> list[Comparison]:
    """Of each cell with seeds in common: its values, the second, less the reference's."""
    found = {
        cell: difference
        for cell, (reference, values) in pairs.items()
        if (difference := paired(values, reference))
    }
    tested = [cell for cell, difference in found.items() if difference.n >= FEWEST_PAIRS]
    corrected = dict(zip(tested, holm([found[cell].p for cell in tested]), strict=True))
    sign = 1 if higher_is_better else -1
    return [
        Comparison(cell, "", each, p := corrected.get(cell, math.nan), _reading(each, p, sign))
        for cell, each in found.items()
    ]


def _reading(difference: Difference, p: float, sign: int) -> str:
    if difference.n < FEWEST_PAIRS:
        return TOO_FEW
    if not p < SIGNIFICANT:
        return UNCLEAR
    return BETTER if sign * difference.mean > 0 else WORSE


# ------------------------------------------------------------------------------------ claims


@dataclass(frozen=True)
class Checked:
    """A claim, whether it was found to hold, and the numbers, a text for each cell."""

    claim: Claim
    result: str
    numbers: tuple[str, ...]


def checked_claims(sweep: Sweep, frame: pd.DataFrame) -> list[Checked]:
    """Every claim of the sweep, against the table of `frames.results` with its verdicts.

    It is reproduced if it holds in every cell that it is about: `near` by the mean over seeds,
    `above` and `below` also beyond the doubt that several seeds leave, half the 95 % interval.
    """
    return [_checked(claim, sweep, frame) for claim in sweep.claims]


def _checked(claim: Claim, sweep: Sweep, frame: pd.DataFrame) -> Checked:
    about = [trial for trial in _one_each(sweep) if agrees(trial.spec, claim.of)]
    cells = [_in_cell(claim, trial, sweep, frame) for trial in about]
    numbers = tuple(f"{sweep.cell_label(t)}: {c.text}" for t, c in zip(about, cells, strict=True))
    if not cells or any(cell.holds is None for cell in cells):
        return Checked(claim, NOT_RUN, numbers)
    result = REPRODUCED if all(cell.holds for cell in cells) else NOT_REPRODUCED
    return Checked(claim, result, numbers)


@dataclass(frozen=True)
class _Found:
    holds: bool | None
    text: str


def _in_cell(claim: Claim, trial: Trial, sweep: Sweep, frame: pd.DataFrame) -> _Found:
    metric = claim.metric or trial.spec.data.headline
    values = by_seed(frame, sweep.cell_label(trial), metric)
    if values.empty:
        return _Found(None, "nothing finished" if metric in frame else f"no `{metric}`")
    mean, width, n, name = float(values.mean()), half_width(values), len(values), ""
    if isinstance(claim.other, dict):
        other = partner(sweep, trial, claim.other)
        if other is None:
            return _Found(None, "no single cell to compare with")
        name = sweep.cell_label(other)
        difference = paired(values, by_seed(frame, name, metric))
        if difference is None:
            return _Found(None, f"no seed in common with {name}")
        mean, width, n = difference.mean, difference.half_width, difference.n
    text = _shown(metric, trial.spec.data.metric == "accuracy", mean, width, n)
    text += f" more than {name}" if name else ""
    return _held(claim, mean, 0.0 if math.isnan(width) else width, text)


def _held(claim: Claim, mean: float, doubt: float, text: str) -> _Found:
    target = 0.0 if isinstance(claim.other, dict) else claim.other
    if claim.within is not None:
        return _Found(abs(mean - target) <= claim.within, text)
    sign = 1 if claim.above is not None else -1
    ahead = sign * (mean - target) - claim.by
    if 0 < ahead <= doubt:
        text += ", as claimed but within the doubt of so few seeds"
    return _Found(ahead > doubt, text)


def _shown(metric: str, is_share: bool, mean: float, width: float, n: int) -> str:
    """A number as the tables show it, accuracies in percent."""
    is_share = is_share and (metric.endswith("accuracy") or metric in ("drop", "limit", "own"))
    if is_share:
        mean, width = 100 * mean, 100 * width
    digits = 2 if is_share else _decimals(mean if math.isnan(width) else width)
    text = f"{mean:.{digits}f}" + ("" if math.isnan(width) else f" ± {width:.{digits}f}")
    return f"{text}{' %' if is_share else ''} (n = {n})"


def _decimals(scale: float) -> int:
    """Decimal places that show three digits of a number."""
    return max(0, 2 - math.floor(math.log10(abs(scale)))) if scale else 0
