"""The claims of papers on a sweep's cells, and its author's expectations, against the results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from nodebench.report.analysis.baseline import by_seed, partners, trial_of_each_cell
from nodebench.report.analysis.columns import TIMED_SECONDS
from nodebench.report.analysis.formatting import (
    NO_VALUE,
    interval_text,
    scaled,
)
from nodebench.report.analysis.statistics import (
    Bounds,
    alike,
    critical,
    half_width,
    is_share,
    paired,
    possible_differences,
    possible_values,
)
from nodebench.spec import Trial
from nodebench.spec.vocabulary import VERDICT_NUMBERS
from nodebench.sweep import Sweep
from nodebench.sweep.file import Claim
from nodebench.sweep.partial_cells import agrees
from nodebench.sweep.points import points


class Judgement(StrEnum):
    """Whether a claim was found to hold."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNDECIDED = "undecided"
    NOT_RUN = "not run"


class Basis(StrEnum):
    """The basis of a judgement: intervals over seeds, or numbers that have no interval.

    Without an interval over seeds, what other test samples could overturn is undecided.
    """

    INTERVAL = ""
    ALIKE = "the same in every seed (not tested)"
    ONE_SEED = "by one seed"
    TIMED = "by one timing pass"
    SAMPLED = "within the sampling error of its test samples"


CLAIM_WORDS = {Judgement.HOLDS: "reproduced", Judgement.FAILS: "not reproduced"}
EXPECTATION_WORDS = {Judgement.HOLDS: "met", Judgement.FAILS: "not met"}
"""Judgements in words: on claims, which have a source, and on expectations, which have none."""


@dataclass(frozen=True)
class Checked:
    """A claim or an expectation, its judgement, and the numbers, one text per cell."""

    claim: Claim
    judgement: Judgement
    numbers: tuple[str, ...] = ()
    basis: Basis = Basis.INTERVAL

    @property
    def has_source(self) -> bool:
        """Whether it is a published claim; otherwise it is an expectation."""
        return bool(self.claim.source)

    @property
    def numbers_text(self) -> str:
        """The numbers of all cells; a dash if there are none."""
        return "; ".join(self.numbers) or NO_VALUE

    @property
    def text(self) -> str:
        """The judgement and its basis: `reproduced by one seed`."""
        words = CLAIM_WORDS if self.has_source else EXPECTATION_WORDS
        word = words.get(self.judgement, self.judgement.value)
        separator = " " if self.basis in (Basis.ONE_SEED, Basis.TIMED) else ", "
        return f"{word}{separator}{self.basis}" if self.basis else word


def checked_claims(sweep: Sweep, frame: pd.DataFrame) -> list[Checked]:
    """Checks every claim of the sweep against the table of `frames.result_frame` with verdicts.

    A claim holds if it holds in every cell that it is about, and fails if it fails in one; with
    several seeds, by at least half the 95 % interval. For a failure, the intervals of several cells
    are widened, since one of many may be missed by chance. Otherwise, the claim is undecided.
    """
    return [checked_claim(claim, sweep, frame) for claim in sweep.claims]


def checked_claim(claim: Claim, sweep: Sweep, frame: pd.DataFrame) -> Checked:
    """Checks one claim against the table of `frames.result_frame`."""
    evidence = _Evidence(claim, sweep, frame)
    about = [trial for trial in trial_of_each_cell(sweep) if evidence.is_about(trial)]
    found = {sweep.cell_label(trial): evidence.of_cell(trial) for trial in about}
    intervals = sum(cell.half_width > 0 for cell in found.values())
    cells = [(cell.judgement(claim, intervals), cell) for cell in found.values()]
    judgement = _joint_judgement([each for each, _ in cells])
    bases = {cell.basis for each, cell in cells if each is judgement}
    weakest = next((basis for basis in reversed(Basis) if basis in bases), Basis.INTERVAL)
    numbers = tuple(f"{label}: {cell.text}" for label, cell in found.items())
    return Checked(claim, judgement, numbers, weakest)


def _joint_judgement(cells: Sequence[Judgement]) -> Judgement:
    """The judgement on all cells together: the first in `order` that a cell has."""
    order = Judgement.FAILS, Judgement.NOT_RUN, Judgement.UNDECIDED, Judgement.HOLDS
    return next((each for each in order if each in cells), Judgement.NOT_RUN)


@dataclass(frozen=True)
class _Cell:
    """How far a cell is `beyond` the bound of a claim; negative if the claim fails.

    `half_width` is that of the 95 % interval over `n` seeds; nan for one seed, for seeds that are
    alike, and for seconds, which a timing pass measures without seeds. `sampling` is half the 95 %
    interval that the test samples leave of accuracies of single trainings; 0 for other metrics.
    """

    text: str
    beyond: float = math.nan
    half_width: float = math.nan
    n: int = 0
    sampling: float = 0.0
    is_timed: bool = False

    @property
    def basis(self) -> Basis:
        """The basis of a judgement on it."""
        if self.half_width >= 0 or math.isnan(self.beyond):
            return Basis.INTERVAL
        if self.is_timed:
            return Basis.TIMED
        if abs(self.beyond) < self.sampling:
            return Basis.SAMPLED
        return Basis.ONE_SEED if self.n == 1 else Basis.ALIKE

    def judgement(self, claim: Claim, intervals: int) -> Judgement:
        """Whether the claim holds here; `intervals` is the number of cells with an interval."""
        if math.isnan(self.beyond):
            return Judgement.NOT_RUN
        if self.basis is Basis.SAMPLED:
            return Judgement.UNDECIDED
        if math.isnan(self.half_width):
            holds = self.beyond > 0 or (self.beyond == 0 and claim.within is not None)
            return Judgement.HOLDS if holds else Judgement.FAILS
        if self.beyond >= self.half_width:
            return Judgement.HOLDS
        widened = critical(self.n - 1, intervals) / critical(self.n - 1)
        fails = -self.beyond >= self.half_width * float(widened)
        return Judgement.FAILS if fails else Judgement.UNDECIDED


class _Evidence:
    """The evidence of a table on a claim, cell by cell."""

    def __init__(self, claim: Claim, sweep: Sweep, frame: pd.DataFrame):
        self._claim, self._sweep, self._frame = claim, sweep, frame
        self._others = partners(sweep, claim.other) if isinstance(claim.other, dict) else {}
        self._known: dict[str, Mapping[str, pd.Series[float]]] = {}

    def is_about(self, trial: Trial) -> bool:
        """Whether the claim is about a trial's cell, which is not the one it compares with."""
        claim = self._claim
        return agrees(trial.spec, claim.of) and not (
            isinstance(claim.other, dict) and agrees(trial.spec, claim.other)
        )

    def of_cell(self, trial: Trial) -> _Cell:
        """The evidence from a trial's cell."""
        metric = self._claim.metric or trial.spec.data.headline
        values = self._by_seed(metric, self._sweep.cell_label(trial))
        if isinstance(self._claim.other, dict):
            return self._compared(trial, metric, values)
        if values.empty:
            return _Cell(f"no `{metric}`")
        mean, width, headline = float(values.mean()), _half_width(values), trial.spec.data.metric
        in_percent = is_share(metric, headline)
        number = _number_text(in_percent, mean, width, possible_values(metric, headline))
        text = f"{number}{' %' if in_percent else ''}"
        sampling = self._sampling_error(trial, metric, mean)
        return self._cell(metric, text, mean, width, len(values), sampling)

    def _compared(self, trial: Trial, metric: str, values: pd.Series[float]) -> _Cell:
        other = self._others.get(trial.cell.key)
        if other is None:
            return _Cell("no single configuration to compare with")
        name = self._sweep.cell_label(other)
        theirs = self._by_seed(metric, name)
        found = paired(values, theirs)
        if found is None:
            return _Cell(f"no `{metric}` of the same seed as {name}")
        mean, width = found.mean, found.half_width
        in_percent = is_share(metric, trial.spec.data.metric)
        possible = possible_differences(metric, trial.spec.data.metric)
        number = _number_text(in_percent, abs(mean), width, possible)
        unit = " points" if in_percent else ""
        text = f"{number}{unit} {'less' if mean < 0 else 'more'} than {name}"
        sampling = self._sampling_error(trial, metric, values.mean(), theirs.mean())
        return self._cell(metric, text, mean, width, found.n, sampling)

    def _cell(
        self, metric: str, text: str, mean: float, width: float, n: int, sampling: float
    ) -> _Cell:
        is_timed = metric == TIMED_SECONDS
        text += "" if is_timed else f" (n = {n})"
        return _Cell(text, _beyond(self._claim, mean), width, n, sampling, is_timed)

    def _sampling_error(self, trial: Trial, metric: str, *shares: float) -> float:
        """Half the 95 % interval of a share of the test samples, or of the difference of two.

        Binomial, in the normal approximation. A drop is the share of the samples that were lost;
        two networks err independently, which is the widest that there can be.
        """
        samples = self._test_samples(trial, metric)
        if samples is None or not is_share(metric, trial.spec.data.metric):
            return 0.0
        variance = sum(abs(p) * (1 - abs(p)) for p in shares) / samples
        return float(critical(math.inf)) * math.sqrt(variance)

    def _test_samples(self, trial: Trial, metric: str) -> int | None:
        """The number of samples on which a metric was tested; None if it is not known."""
        wanted = points(trial, self._sweep.evaluate) if metric in VERDICT_NUMBERS else []
        parts = [point.test_size for point in wanted if point.is_about_accuracy]
        largest = max((size or math.inf for size in parts), default=math.inf)  # as verdicts take
        return trial.spec.data.test_samples if largest == math.inf else int(largest)

    def _by_seed(self, metric: str, cell: str) -> pd.Series[float]:
        """A cell's metric by seed; the timing pass, which times one trial per cell, has no seed."""
        if metric not in self._known:
            self._known[metric] = by_seed(self._frame, metric)
        values = self._known[metric].get(cell, pd.Series(dtype=float))  # an older table lacks it
        return values.reset_index(drop=True) if metric == TIMED_SECONDS else values


def _half_width(values: pd.Series[float]) -> float:
    """Half the interval of a mean; nan for one seed, or if several give the same value."""
    return math.nan if alike(values) else half_width(values)


def _beyond(claim: Claim, mean: float) -> float:
    """How far a mean is beyond the bound of a claim; negative if it is on the wrong side."""
    target = 0.0 if isinstance(claim.other, dict) else claim.other
    if claim.within is not None:
        return claim.within - abs(mean - target)
    return (1 if claim.above is not None else -1) * (mean - target) - claim.by


def _number_text(in_percent: bool, mean: float, width: float, possible: Bounds) -> str:
    """A number with its interval, cut at the `possible` values."""
    if in_percent:
        return interval_text(100 * mean, 100 * width, 2, scaled(possible, 100))
    if math.isnan(width) and mean and not 1e-4 <= abs(mean) < 1e9:
        return f"{mean:.3g}"
    return interval_text(mean, width, _decimals(width if width > 0 else mean), possible)


def _decimals(scale: float) -> int:
    """Decimal places that show three digits of a number."""
    return max(0, 2 - math.floor(math.log10(abs(scale)))) if scale else 0


def claims_table(checked: Sequence[Checked]) -> pd.DataFrame:
    """One row per claim: its text, its source unless it is an expectation, and its result."""
    return pd.DataFrame(
        {
            "claim" if each.has_source else "expectation": each.claim.says,
            **({"source": each.claim.source} if each.has_source else {}),
            "condition": asked_text(each.claim),
            "result": each.text,
            "numbers": each.numbers_text,
        }
        for each in checked
    )


def asked_text(claim: Claim) -> str:
    """The condition in the words of the sweep's file: `drop below 0.1`."""
    metric = f"{claim.metric} " if claim.metric else ""
    if claim.within is not None:
        return f"{metric}within {claim.within:g} of {claim.near:g}"
    word = "above" if claim.above is not None else "below"
    if isinstance(claim.other, dict):
        other = ", ".join(f"{path} {value}" for path, value in claim.other.items())
    else:
        other = f"{claim.other:g}"
    return f"{metric}{word} {other}" + (f", by {claim.by:g}" if claim.by else "")
