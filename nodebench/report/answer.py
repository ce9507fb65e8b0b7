"""The answer of a report: the list of the sweep's findings that opens it.

`planning/freshness.py` keeps it for launches that have nothing to do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from nodebench.errors import TrialOutcome, counted
from nodebench.report.analysis.agreement import COMPARED
from nodebench.report.analysis.baseline import (
    SIGNIFICANT,
    BaselineReading,
    by_seed,
)
from nodebench.report.analysis.columns import CELL, MISSING, OUTCOME
from nodebench.report.analysis.findings import Findings
from nodebench.report.analysis.formatting import margin_text, measured_with_unit, probability
from nodebench.report.analysis.gradients import ways
from nodebench.report.analysis.statistics import FEWEST_SEEDS, Untested, column, paired
from nodebench.report.analysis.verdict import ACCURACY_ROUNDING, VerdictWord
from nodebench.report.machines import MACHINE, MachineAgreement, machine_agreement
from nodebench.report.markdown import bold, bullets
from nodebench.sweep import Sweep

MOST_NAMED = 4
"""The most configurations named in a sentence; more are counted."""


AnswerLine = tuple[str, str]
"""The title and the text of a line, in Markdown."""


def answer(found: Findings) -> list[AnswerLine]:
    """The lines of all questions that the sweep answers."""
    questions = (
        _best,
        _at_chance,
        _gradients,
        _against_baseline,
        _still_odes,
        _front,
        _claims,
        _published,
        _machines,
        _cost,
    )
    return [line for question in questions for line in question(found)]


def listed(lines: Iterable[AnswerLine]) -> str:
    """An answer as a list in Markdown."""
    return bullets(f"{bold(f'{what}:')} {text}" for what, text in lines)


def _is_trained(sweep: Sweep) -> bool:
    """Whether any weights are trained; otherwise there is nothing to rank and no cost to tell."""
    return any(trial.spec.is_trained for trial in sweep.trials)


def _best(found: Findings) -> list[AnswerLine]:
    """The best configuration of each data set, and whether it is clearly ahead of the next."""
    if not _is_trained(found.sweep):
        return []
    return [
        (f"Best{_on(found.sweep, name)}", _best_text(found, *ranked))
        for name, rows in found.results.groupby("data.name", sort=False)
        if (ranked := _ranked(found.sweep, rows))
    ]


def _on(sweep: Sweep, data: object) -> str:
    """The data set in a title, if there are several."""
    return f" on `{data}`" if "data.name" in sweep.varying else ""


@dataclass(frozen=True)
class _Ranked:
    """A configuration of `planned` trials, and the headline metric of finished ones by seed."""

    cell: str
    values: pd.Series[float]
    planned: int

    @property
    def is_complete(self) -> bool:
        return len(self.values) == self.planned

    @property
    def n_text(self) -> str:
        """`(n = 3)`, or `(n = 3 of 5)` if others did not finish."""
        return f"(n = {len(self.values)}{'' if self.is_complete else f' of {self.planned}'})"


def _ranked(sweep: Sweep, frame: pd.DataFrame) -> list[_Ranked]:
    """The configurations with a finished trial, the best first."""
    planned = frame[CELL].value_counts()
    values_of = by_seed(frame, sweep.headline)
    found = [_Ranked(cell, each, planned[cell]) for cell, each in values_of.items() if len(each)]
    return sorted(found, key=lambda each: each.values.mean(), reverse=sweep.higher_is_better)


def _best_text(found: Findings, best: _Ranked, *others: _Ranked) -> str:
    metric, judged = found.sweep.metric, found.judged
    name = metric.replace("_", " ")
    text = f"`{best.cell}`, {measured_with_unit(metric, best.values)} test {name} {best.n_text}"
    if len(judged) and {*judged.loc[judged[CELL] == best.cell, "verdict"]} == {VerdictWord.RESNET}:
        text += ", but it is not an ODE"
    if best.cell in _guessing(found):
        return f"{text}, no better than chance."
    if equal := [each for each in others if _is_tied(best, each)]:
        verb = "is" if len(equal) == 1 else "are"
        text += f". {_named([each.cell for each in equal])} {verb} as good in every seed."
        return text
    return f"{text}. {_lead(found.sweep, best, others[0])}" if others else f"{text}."


def _is_tied(best: _Ranked, other: _Ranked) -> bool:
    """Whether two configurations have the same values, of several seeds."""
    found = paired(best.values, other.values)
    return found is not None and found.n == len(best.values) > 1 and found.is_none


def _lead(sweep: Sweep, best: _Ranked, second: _Ranked) -> str:
    """Whether the best is clearly ahead of the second, by the paired test of their seeds."""
    name = f"`{second.cell}`, {measured_with_unit(sweep.metric, second.values)}"
    name += "" if second.is_complete else f" {second.n_text}"
    sign = 1 if sweep.higher_is_better else -1
    difference = paired(best.values, second.values)
    if difference is not None and sign * difference.mean < 0:
        # Each mean is over the seeds that finished, which are not the same seeds.
        seeds = counted(difference.n, "seed")
        return f"Second best: {name}, which is ahead on the {seeds} that finished in both."
    if difference is None or difference.untested is Untested.TOO_FEW:
        why = f"with fewer than {FEWEST_SEEDS} seeds, its lead was not tested"
        return f"Second best: {name} ({why})."
    if difference.untested is Untested.ALIKE:
        return f"Second best: {name} (every seed gives the same lead, so it was not tested)."
    word = "clearly" if difference.p < SIGNIFICANT else "not clearly"
    p = f"paired t-test, p = {probability(difference.p)}, not corrected"
    return f"It is {word} ahead of the second best, {name} ({p})."


def _at_chance(found: Findings) -> list[AnswerLine]:
    """The configurations no better than always predicting the most common class."""
    cells = _guessing(found) if _is_trained(found.sweep) else []
    if not cells:
        return []
    margin = margin_text(found.sweep.metric, found.sweep.margin)
    return [("No better than chance", f"{_named(cells)} (margin {margin}).")]


def _guessing(found: Findings) -> list[str]:
    sweep, frame = found.sweep, found.results
    done = frame[frame[OUTCOME] == TrialOutcome.FINISHED]
    if "chance" not in done or sweep.headline not in done:
        return []
    means = done.groupby(CELL, sort=False)[[sweep.headline, "chance"]].mean().dropna()
    ahead = (means[sweep.headline] - means["chance"]) * (1 if sweep.higher_is_better else -1)
    return list(means.index[ahead <= sweep.margin + ACCURACY_ROUNDING])


def _against_baseline(found: Findings) -> list[AnswerLine]:
    compared = found.compared
    if not compared:
        return []
    title = "[Against the baseline](#against-the-baseline)"
    if {each.tested.reading for each in compared} == {BaselineReading.UNCLEAR}:
        one = "the other configuration does not differ clearly from its baseline."
        none = "neither of the 2" if len(compared) == 2 else f"none of the {len(compared)}"
        many = f"{none} configurations differs clearly from its baseline."
        return [(title, one if len(compared) == 1 else many)]
    parts = _counts_text((each.tested.reading for each in compared), BaselineReading)
    return [(title, f"{parts} (of {counted(len(compared), 'configuration')}).")]


def _still_odes(found: Findings) -> list[AnswerLine]:
    """How many trained networks are ODEs, and which configurations have some that are not."""
    judged = found.judged
    if judged.empty:
        return []
    words = judged["verdict"]
    odes, undecided = (int((words == w).sum()) for w in (VerdictWord.ODE, VerdictWord.UNDECIDED))
    text = f"{odes} of {counted(len(judged), 'trained network')} with ODE blocks"
    text += f", {undecided} undecided" if undecided else ""
    lost = judged.loc[words == VerdictWord.RESNET, CELL].value_counts(sort=False)
    of = judged[CELL].value_counts().to_dict()
    told = [
        f"`{cell}`" + (f" ({n} of {of[cell]})" if of[cell] > 1 else "")
        for cell, n in lost.to_dict().items()
    ]
    which = _enumerated(told) if len(told) <= MOST_NAMED else f"in {len(told)} configurations"
    text += f"; ResNets in disguise: {which}." if told else "."
    return [("[Still ODEs](#is-it-still-an-ode)", text)]


def _front(found: Findings) -> list[AnswerLine]:
    """The Pareto-optimal configurations of each data set by seconds, if these are comparable."""
    front = found.frontier[found.frontier["front_seconds"]]
    return [
        (f"Pareto-optimal by time per epoch{_on(found.sweep, name)}", f"{_named(list(cells))}.")
        for name, cells in front.groupby("data", sort=False)[CELL]
        if len(cells) <= MOST_NAMED
    ]


def _claims(found: Findings) -> list[AnswerLine]:
    size = found.sweep.made.size
    where = f" (in the {size} form)" if size != "full" else ""
    lines: list[AnswerLine] = []
    for name, has_source in (("[Claims](#claims)", True), ("[Expectations](#expectations)", False)):
        counts = Counter(each.text for each in found.checked if each.has_source is has_source)
        parts = _enumerated([f"{count} {text}" for text, count in counts.items()])
        lines += [(name, f"{parts}{where}.")] if counts else []
    return lines


def _published(found: Findings) -> list[AnswerLine]:
    readings = [each.reading for each in found.published if each.reading in COMPARED]
    parts = _counts_text(readings, COMPARED)
    title = "[Published numbers](#published-numbers)"
    numbers = counted(len(readings), "comparable number")
    return [(title, f"of {numbers}, {parts}.")] if readings else []


def _machines(found: Findings) -> list[AnswerLine]:
    """Whether configurations agree with imported results from other machines."""
    if found.machines.empty:
        return []
    groups = found.machines.groupby([CELL, MACHINE], sort=False)
    readings = [machine_agreement(found.sweep, group) for _, group in groups]
    counts = _counts_text(readings, MachineAgreement)
    text = f"of {counted(len(readings), 'comparison')}, {counts}."
    return [("[On other machines](#the-same-trial-on-other-machines)", text)]


def _cost(found: Findings) -> list[AnswerLine]:
    """The number of trials, the time of training and evaluation, the machines and the failures."""
    ran = found.results[found.results[OUTCOME] != MISSING]
    if ran.empty or not _is_trained(found.sweep):
        return []
    packed = ran.get("packed", pd.Series(1, ran.index)).fillna(1)  # each has the time of its pack
    spent = f"{_duration(float((ran['trained_s'] / packed).sum()))} of training and tests"
    points = found.evaluated, found.batches, found.gradients
    if (seconds := sum(float(column(frame, "measuring_s").sum()) for frame in points)) > 0:
        spent += f", {_duration(seconds)} of evaluation"
    machines = [
        f"{hardware} ({device}, {counted(int(threads), 'thread')} per trial)"
        for hardware, device, threads in ran.reindex(columns=["hardware", "device", "threads"])
        .dropna()
        .drop_duplicates()
        .itertuples(index=False)
    ]
    where = f" on {_enumerated(machines)}" if machines else ""
    failed = int((ran[OUTCOME] != TrialOutcome.FINISHED).sum())
    ending = f"This includes {counted(failed, 'trial')} that did [not finish](#not-finished)."
    ending = ending if failed else "None failed."
    return [("Cost", f"{counted(len(ran), 'trial')}, {spent}{where}. {ending}")]


def _duration(seconds: float) -> str:
    for size, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {name}"
    return "1 second" if round(seconds) == 1 else f"{seconds:.0f} seconds"


def _gradients(found: Findings) -> list[AnswerLine]:
    """Which gradients were exact, and which were the fastest and the lightest after backprop."""
    if found.costs.empty:
        return []
    others = ways(found.costs)
    others = others[others["way"] != "backprop"]
    title = "[Gradients](#which-gradient-to-trust)"
    exact = [f"`{way}`" for way in others.loc[others["is_exact"].eq(True), "way"]]
    parts = [f"as exact as `backprop`, up to rounding: {_enumerated(exact) or 'none'}"]
    for word, name, of in (
        ("fastest", "of_seconds", "seconds"),
        ("lightest", "of_memory", "memory"),
    ):
        known = others.dropna(subset=[name])
        if len(known):
            least = known.sort_values(name, kind="stable").iloc[0]
            how = "exact" if least["is_exact"] else _inexact(float(least["from_backprop"]))
            ratio = f"{least[name]:.2g} × the {of} of `backprop`"
            parts.append(f"{word} after it: `{least['way']}` ({ratio}, {how})")
    return [(title, "; ".join(parts) + ".")]


def _inexact(distance: float) -> str:
    """How far a gradient that is not known to be exact is from backprop's."""
    if math.isnan(distance):
        return "not compared with its gradient"
    return f"up to {distance:.1e} from its gradient"


class _Word(Protocol):
    """A member of an enumeration, with the words that follow its count in a sentence."""

    @property
    def text(self) -> str: ...

    def __hash__(self) -> int: ...


def _counts_text(found: Iterable[object], words: Iterable[_Word]) -> str:
    """How often each word was found, in the words' order: `2 better and 1 worse`."""
    counts = Counter(found)
    return _enumerated([f"{counts[word]} {word.text}" for word in words if counts[word]])


def _named(cells: Sequence[str]) -> str:
    if len(cells) > MOST_NAMED:
        return f"{len(cells)} configurations"
    return _enumerated([f"`{cell}`" for cell in cells])


def _enumerated(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), *words[-1:]]) if len(words) > 1 else "".join(words)
