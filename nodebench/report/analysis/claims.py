"""The claims of papers on a sweep's cells, and its author's expectations, against the results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from nodebench.errors import TrialOutcome
from nodebench.report.analysis.baseline import by_seed, partners, trial_of_each_cell
from nodebench.report.analysis.columns import CELL, MISSING, OUTCOME, TIMED_SECONDS
from nodebench.report.analysis.formatting import (
    NO_VALUE,
    number_and_interval,
)
from nodebench.report.analysis.statistics import (
    FEWEST_SEEDS,
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
    FAILED = "since some seeds have no value"
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
        is_clause = self.basis in (Basis.ONE_SEED, Basis.TIMED, Basis.FAILED)
        separator = " " if is_clause else ", "
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
    `failed` is the number of further seeds that ended without a value.
    """

    text: str
    beyond: float = math.nan
    half_width: float = math.nan
    n: int = 0
    sampling: float = 0.0
    is_timed: bool = False
    failed: int = 0

    @property
    def basis(self) -> Basis:
        """The basis of a judgement on it."""
        if self.failed and not self.beyond <= 0:  # true for nan too
            return Basis.FAILED
        if self.half_width >= 0 or math.isnan(self.beyond):
            return Basis.INTERVAL
        if self.is_timed:
            return Basis.TIMED
        if abs(self.beyond) < self.sampling:
            return Basis.SAMPLED
        return Basis.ONE_SEED if self.n == 1 else Basis.ALIKE

    def judgement(self, claim: Claim, intervals: int) -> Judgement:
        """Whether the claim holds here; `intervals` is the number of cells with an interval."""
        if self.basis in (Basis.FAILED, Basis.SAMPLED):
            return Judgement.UNDECIDED
        if math.isnan(self.beyond):
            return Judgement.NOT_RUN
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
        metric, cell = self._metric(trial), self._sweep.cell_label(trial)
        values = self._by_seed(metric, cell)
        if isinstance(self._claim.other, dict):
            return self._compared(trial, values)
        if values.empty:
            return self._without_value(f"no `{metric}`", metric, cell)
        mean, width, n = float(values.mean()), _half_width(values), len(values)
        in_percent = is_share(metric, trial.spec.data.metric)
        possible = possible_values(metric, trial.spec.data.metric)
        shown = width if n >= FEWEST_SEEDS else math.nan
        text = number_and_interval(in_percent, mean, shown, possible)
        if n == 2 and not math.isnan(width):
            both = (
                number_and_interval(in_percent, value, shown, possible) for value in sorted(values)
            )
            text += f" ({', '.join(both)})"
        return self._cell(
            trial, f"{text}{' %' if in_percent else ''}", mean, width, n, {cell: mean}
        )

    def _compared(self, trial: Trial, values: pd.Series[float]) -> _Cell:
        other, metric = self._others.get(trial.cell.key), self._metric(trial)
        if other is None:
            return _Cell("no single configuration to compare with")
        cell, name = self._sweep.cell_label(trial), self._sweep.cell_label(other)
        theirs = self._by_seed(metric, name)
        found = paired(values, theirs)
        if found is None:
            text = f"no `{metric}` of the same seed as {name}"
            return self._without_value(text, metric, cell, name)
        in_percent = is_share(metric, trial.spec.data.metric)
        possible = possible_differences(metric, trial.spec.data.metric)
        text = number_and_interval(in_percent, abs(found.mean), found.shown_half_width, possible)
        unit = " points" if in_percent else ""
        text += f"{unit} {'less' if found.mean < 0 else 'more'} than {name}"
        shares = {cell: values.mean(), name: theirs.mean()}
        return self._cell(trial, text, found.mean, found.half_width, found.n, shares)

    def _metric(self, trial: Trial) -> str:
        return self._claim.metric or trial.spec.data.headline

    def _cell(
        self, trial: Trial, text: str, mean: float, width: float, n: int, means: dict[str, float]
    ) -> _Cell:
        """The evidence from a mean that was made of the `means` of cells."""
        metric, beyond = self._metric(trial), _beyond(self._claim, mean)
        if metric == TIMED_SECONDS:
            return _Cell(text, beyond, width, n, is_timed=True)
        failed = len(self._failed(metric, *means))
        text += f" (n = {n} of {n + failed})" if failed else f" (n = {n})"
        sampling = self._sampling_error(trial, metric, means)
        return _Cell(text, beyond, width, n, sampling, failed=failed)

    def _without_value(self, text: str, metric: str, *cells: str) -> _Cell:
        return _Cell(text, failed=len(self._failed(metric, *cells)))

    def _failed(self, metric: str, *cells: str) -> set[int]:
        """The seeds of which a cell's trial ended without a value of a metric."""
        rows = self._frame[self._frame[CELL].isin(cells)]
        ended = ~rows[OUTCOME].isin((MISSING, TrialOutcome.FINISHED))
        if metric in VERDICT_NUMBERS and metric in rows:
            ended |= rows["verdict"].notna() & rows[metric].isna()
        return set(rows.loc[ended, "seed"])

    def _sampling_error(self, trial: Trial, metric: str, shares: Mapping[str, float]) -> float:
        """Half the 95 % interval of a share of the test samples, or of a difference of two shares.

        Binomial, in the normal approximation; two networks err independently, which is the widest
        that there can be.
        """
        samples = self._test_samples(trial, metric)
        if samples is None or not is_share(metric, trial.spec.data.metric):
            return 0.0
        variance = sum(self._variance(metric, *each) for each in shares.items()) / samples
        return float(critical(math.inf)) * math.sqrt(variance)

    def _variance(self, metric: str, cell: str, share: float) -> float:
        """The variance of one sample's contribution to a cell's share.

        A drop is the samples lost minus those gained, of which there may be as many as were wrong.
        """
        share = abs(share)
        if metric != "drop":
            return share * (1 - share)
        wrong = 1 - float(self._by_seed("own", cell).mean())
        return min(1.0, share + 2 * wrong) - share**2

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
