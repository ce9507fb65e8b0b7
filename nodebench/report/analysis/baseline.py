"""Comparisons of a sweep's cells with their baseline cells, paired by seed."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Any

import pandas as pd

from nodebench.errors import TrialOutcome
from nodebench.report.analysis.columns import CELL, OUTCOME
from nodebench.report.analysis.formatting import NO_VALUE, probability, signed, signed_ends, unit
from nodebench.report.analysis.statistics import (
    PairedDifference,
    Untested,
    column,
    holm,
    paired,
    width_with,
)
from nodebench.spec import Trial
from nodebench.spec.identity import canonical
from nodebench.sweep import Sweep
from nodebench.sweep.partial_cells import agrees, named_paths

SIGNIFICANT = 0.05


class BaselineReading(StrEnum):
    """The result of comparing two cells, pair by pair."""

    BETTER = "better"
    WORSE = "worse"
    UNCLEAR = "no clear difference"
    SAME = "the same"
    ALIKE = Untested.ALIKE.value
    TOO_FEW = Untested.TOO_FEW.value

    @property
    def text(self) -> str:
        """The words after a count in a sentence: `2 better and 1 without a clear difference`."""
        return COMPARED_IN_A_SENTENCE.get(self, self.value)


COMPARED_IN_A_SENTENCE = {
    BaselineReading.UNCLEAR: "without a clear difference",
    BaselineReading.ALIKE: "with the same difference in every pair (not tested)",
    BaselineReading.TOO_FEW: "with too few seeds to test",
}


def partners(sweep: Sweep, named: Mapping[str, Any]) -> dict[str, Trial]:
    """A cell's key -> a trial of the cell that has the `named` settings and is otherwise identical.

    Settings that one of the two lacks are ignored, such as the solver of a network without an ODE.
    A cell is left out if it has no such partner, if it has several, or if it is its own.
    """
    apart = [p for p in sweep.varying if not _is_named(p, named_paths(named))]
    trials = trial_of_each_cell(sweep)
    found: dict[str, list[Trial]] = {trial.cell.key: [] for trial in trials}
    candidates = _by_paths((trial for trial in trials if agrees(trial.spec, named)), apart)
    for (ours, own), (theirs, others) in product(_by_paths(trials, apart), candidates):
        shared = [path for path in ours if path in theirs]
        like = defaultdict[tuple[str, ...], list[Trial]](list)
        for other in others:
            like[_values(other, shared)].append(other)
        for trial in own:
            found[trial.cell.key] += like[_values(trial, shared)]
    return {
        key: others[0]
        for key, others in found.items()
        if len(others) == 1 and others[0].cell.key != key
    }


def _by_paths(
    trials: Iterable[Trial], paths: Sequence[str]
) -> list[tuple[tuple[str, ...], list[Trial]]]:
    """The trials, grouped by which of the paths they have."""
    found = defaultdict[tuple[str, ...], list[Trial]](list)
    for trial in trials:
        found[tuple(path for path in paths if path in trial.cell.settings)].append(trial)
    return list(found.items())


def _values(trial: Trial, paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(canonical(trial.cell.settings[path]) for path in paths)


def trial_of_each_cell(sweep: Sweep) -> list[Trial]:
    """The first trial of every cell."""
    return list({trial.cell.key: trial for trial in reversed(sweep.trials)}.values())[::-1]


def _is_named(path: str, named: Sequence[str]) -> bool:
    """Whether a setting is named, or belongs to a group that is."""
    return any(path == name or path.startswith(f"{name}.") for name in named)


def by_seed(frame: pd.DataFrame, metric: str) -> dict[str, pd.Series[float]]:
    """Each cell of a table -> a metric of its finished trials, by seed; empty if none has it."""
    none = column(frame[:0], metric).astype(float)
    found = {str(cell): none for cell in frame[CELL]}
    if metric in frame:
        done = frame.loc[frame[OUTCOME] == TrialOutcome.FINISHED, [CELL, "seed", metric]]
        numbers = done.assign(**{metric: pd.to_numeric(done[metric], errors="coerce")})
        known = numbers.dropna(subset=[metric]).set_index("seed")
        found |= {str(cell): values for cell, values in known.groupby(CELL)[metric]}
    return found


@dataclass(frozen=True)
class TestedDifference:
    """A cell's difference from another cell, and its reading; `p` has Holm's correction."""

    difference: PairedDifference
    p: float
    reading: BaselineReading


@dataclass(frozen=True)
class BaselineComparison:
    """A cell compared with its baseline by the headline metric."""

    cell: str
    baseline: str
    tested: TestedDifference


def against_baseline(sweep: Sweep, frame: pd.DataFrame) -> list[BaselineComparison]:
    """The comparison of every cell that has a partner in the baseline with seeds in common."""
    if not sweep.baseline:
        return []
    others, values = partners(sweep, sweep.baseline), by_seed(frame, sweep.headline)
    baselines = {
        sweep.cell_label(trial): sweep.cell_label(others[trial.cell.key])
        for trial in trial_of_each_cell(sweep)
        if trial.cell.key in others
    }
    pairs = {cell: (values[baseline], values[cell]) for cell, baseline in baselines.items()}
    found = compared_cells(pairs, higher_is_better=sweep.higher_is_better)
    return [BaselineComparison(cell, baselines[cell], tested) for cell, tested in found.items()]


def more_seeds_text(compared: Sequence[BaselineComparison]) -> str:
    """How far more seeds would narrow the intervals; empty if there are no intervals."""
    differences = [each.tested.difference for each in compared]
    seeds = min((difference.n for difference in differences if difference.is_tested), default=0)
    if not seeds:
        return ""
    twice, four_times = (f"{100 * width_with(n * seeds, seeds):.0f} %" for n in (2, 4))
    return (
        f"At the same spread between seeds, {2 * seeds} seeds would narrow the intervals to "
        f"{twice} of their width, {4 * seeds} seeds to {four_times}."
    )


def compared_cells(
    pairs: Mapping[str, tuple[pd.Series[float], pd.Series[float]]], *, higher_is_better: bool
) -> dict[str, TestedDifference]:
    """Compares each cell's values with its reference's; `pairs` are (reference, values) by cell.

    Cells without seeds in common are left out.
    """
    found = {
        cell: difference
        for cell, (reference, values) in pairs.items()
        if (difference := paired(values, reference))
    }
    tested = [cell for cell, difference in found.items() if difference.is_tested]
    corrected = dict(zip(tested, holm([found[cell].p for cell in tested]), strict=True))
    sign = 1 if higher_is_better else -1
    p_of = {cell: corrected.get(cell, math.nan) for cell in found}
    return {
        cell: TestedDifference(each, p_of[cell], _reading(each, p_of[cell], sign))
        for cell, each in found.items()
    }


def _reading(difference: PairedDifference, p: float, sign: int) -> BaselineReading:
    if difference.is_none:
        return BaselineReading.SAME
    if difference.untested:
        return BaselineReading(difference.untested.value)
    if not p < SIGNIFICANT:
        return BaselineReading.UNCLEAR
    return BaselineReading.BETTER if sign * difference.mean > 0 else BaselineReading.WORSE


def baseline_table(sweep: Sweep, found: Sequence[BaselineComparison]) -> pd.DataFrame:
    """One row per cell that has a partner in the baseline: the difference and its reading."""
    metric, seeds = sweep.metric, Counter(map(sweep.cell_label, sweep.trials))
    rows = []
    for each in found:
        difference, planned = each.tested.difference, min(seeds[each.cell], seeds[each.baseline])
        ends = signed_ends(metric, difference.low, difference.high)
        rows.append(
            {
                "configuration": each.cell,
                "against": each.baseline,
                f"difference{unit(metric)}": signed(metric, difference.mean),
                "95 % interval": ends if difference.is_tested else NO_VALUE,
                "Cohen's d": f"{difference.effect:z.2f}" if difference.is_tested else NO_VALUE,
                "p (Holm)": probability(each.tested.p),
                "pairs": f"{difference.n}" + (f" of {planned}" if difference.n < planned else ""),
                "reading": str(each.tested.reading),
            }
        )
    table = pd.DataFrame(rows)
    return table.drop(columns=[name for name in table if (table[name] == NO_VALUE).all()])
