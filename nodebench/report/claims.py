"""What papers claim of a sweep's cells, against what was found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from nodebench.expansion import agrees
from nodebench.identity import Trial
from nodebench.report.baseline import by_seed, one_each, partner
from nodebench.report.statistics import NO_VALUE, half_width, paired
from nodebench.sweep import Sweep
from nodebench.sweepfile import Claim

TIMED = "timed_epoch_s"
REPRODUCED, NOT_REPRODUCED = "reproduced", "**not reproduced**"
UNDECIDED, NOT_RUN = "undecided", "not run"


@dataclass(frozen=True)
class Checked:
    """A claim, whether it was found to hold, and the numbers, a text for each cell.

    Of the cell with the fewest, so many `seeds` bear it out.
    """

    claim: Claim
    result: str
    numbers: tuple[str, ...]
    seeds: int


def checked_claims(sweep: Sweep, frame: pd.DataFrame) -> list[Checked]:
    """Every claim of the sweep, against the table of `frames.results` with its verdicts.

    It is reproduced if it holds in every cell that it is about, and undecided if that is so by the
    means over seeds, but not beyond the doubt that several seeds leave, half the 95 % interval.
    """
    return [_checked(claim, sweep, frame) for claim in sweep.claims]


def _checked(claim: Claim, sweep: Sweep, frame: pd.DataFrame) -> Checked:
    about = [trial for trial in one_each(sweep) if agrees(trial.spec, claim.of)]
    found = {sweep.cell_label(trial): _in_cell(claim, trial, sweep, frame) for trial in about}
    cells = [cell for cell in found.values() if cell is not None]
    numbers = tuple(f"{label}: {cell.text}" for label, cell in found.items() if cell is not None)
    seeds = min((cell.seeds for cell in cells), default=0)
    return Checked(claim, _result(cells), numbers, seeds)


def _result(cells: Sequence[_Found]) -> str:
    if not cells or any(cell.holds is None for cell in cells):
        return NOT_RUN
    if not all(cell.holds for cell in cells):
        return NOT_REPRODUCED
    return UNDECIDED if any(cell.is_doubtful for cell in cells) else REPRODUCED


@dataclass(frozen=True)
class _Found:
    """Whether a claim holds of a cell by the mean, if that is known, and no further."""

    holds: bool | None
    text: str
    seeds: int = 0
    is_doubtful: bool = False


def _in_cell(claim: Claim, trial: Trial, sweep: Sweep, frame: pd.DataFrame) -> _Found | None:
    """Whether a claim holds of a cell; None of a cell that it would compare with itself."""
    metric = claim.metric or trial.spec.data.headline
    values = _values(frame, sweep.cell_label(trial), metric)
    mean, width, n, name = float(values.mean()), half_width(values), len(values), ""
    if isinstance(claim.other, dict):
        if agrees(trial.spec, claim.other):
            return None
        other = partner(sweep, trial, claim.other)
        if other is None:
            return _Found(None, "no single cell to compare with")
        name = sweep.cell_label(other)
        difference = paired(values, _values(frame, name, metric))
        if difference is None:
            return _Found(None, f"no `{metric}` of the same seed as {name}")
        mean, width, n = difference.mean, difference.half_width, difference.n
    elif values.empty:
        return _Found(None, f"no `{metric}`")
    is_share = trial.spec.data.metric == "accuracy" and (
        metric.endswith("accuracy") or metric in ("drop", "limit", "own")
    )
    text = _compared(is_share, mean, width, name) if name else _shown(is_share, mean, width)
    text += "" if metric == TIMED else f" (n = {n})"
    return _held(claim, mean, 0.0 if math.isnan(width) else width, _Found(None, text, n))


def _values(frame: pd.DataFrame, cell: str, metric: str) -> pd.Series[float]:
    """By seed; seconds of the timing pass, which steps one trial of a cell, are of none."""
    values = by_seed(frame, cell, metric)
    return values.reset_index(drop=True) if metric == TIMED else values


def _held(claim: Claim, mean: float, doubt: float, found: _Found) -> _Found:
    target = 0.0 if isinstance(claim.other, dict) else claim.other
    if claim.within is not None:
        ahead = claim.within - abs(mean - target)
    else:
        ahead = (1 if claim.above is not None else -1) * (mean - target) - claim.by
    holds = ahead > 0 or (claim.within is not None and ahead == 0)
    return replace(found, holds=holds, is_doubtful=ahead < doubt)


def _shown(is_share: bool, mean: float, width: float) -> str:
    """A number as the tables show it, accuracies in percent."""
    return f"{_number(is_share, mean, width)}{' %' if is_share else ''}"


def _compared(is_share: bool, mean: float, width: float, other: str) -> str:
    """`4.25 ± 0.10 points less than resnet`."""
    word = "less" if mean < 0 else "more"
    return (
        f"{_number(is_share, abs(mean), width)}{' points' if is_share else ''} {word} than {other}"
    )


def _number(is_share: bool, mean: float, width: float) -> str:
    if is_share:
        mean, width = 100 * mean, 100 * width
    digits = 2 if is_share else _decimals(width if width > 0 else mean)
    return f"{mean:.{digits}f}" + ("" if math.isnan(width) else f" ± {width:.{digits}f}")


def _decimals(scale: float) -> int:
    """Decimal places that show three digits of a number."""
    return max(0, 2 - math.floor(math.log10(abs(scale)))) if scale else 0


def claims(checked: Sequence[Checked]) -> pd.DataFrame:
    """One row per claim: what is said, by whom, what was found."""
    return pd.DataFrame(
        {
            "claim": each.claim.says,
            "source": each.claim.source or NO_VALUE,
            "asked": _asked(each.claim),
            "here": each.result + (" by one seed" if each.seeds == 1 else ""),
            "numbers": "; ".join(each.numbers) or NO_VALUE,
        }
        for each in checked
    )


def _asked(claim: Claim) -> str:
    """The relation, as the sweep's file has it: `drop below 0.1`."""
    metric = f"{claim.metric} " if claim.metric else ""
    if claim.within is not None:
        return f"{metric}within {claim.within:g} of {claim.near:g}"
    word = "above" if claim.above is not None else "below"
    if isinstance(claim.other, dict):
        other = ", ".join(f"{path} {value}" for path, value in claim.other.items())
    else:
        other = f"{claim.other:g}"
    return f"{metric}{word} {other}" + (f", by {claim.by:g}" if claim.by else "")
