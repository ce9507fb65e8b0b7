"""The answer of a report: the list of the sweep's findings that opens it.

`planning/freshness.py` keeps it for launches that have nothing to do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

import pandas as pd

from nodebench.errors import TrialOutcome, counted
from nodebench.report.analysis.agreement import COMPARED
from nodebench.report.analysis.baseline import (
    SIGNIFICANT,
    BaselineComparison,
    BaselineReading,
    by_seed,
)
from nodebench.report.analysis.claims import Checked
from nodebench.report.analysis.columns import CELL, MISSING, OUTCOME
from nodebench.report.analysis.findings import Findings
from nodebench.report.analysis.formatting import margin_text, measured_with_unit, probability
from nodebench.report.analysis.gradients import ways
from nodebench.report.analysis.published import Compared
from nodebench.report.analysis.statistics import FEWEST_PAIRS, column, paired
from nodebench.report.analysis.verdict import ACCURACY_ROUNDING, VerdictWord
from nodebench.report.machines import MACHINE, MachineAgreement, machine_agreement
from nodebench.report.markdown import bold
from nodebench.sweep import Sweep

MOST_NAMED = 4
"""The most configurations named in a sentence; more are counted."""


AnswerLine = tuple[str, str]
"""The title and the text of a line, in Markdown."""


def answer(found: Findings) -> list[AnswerLine]:
    """A line for each question that the sweep answers."""
    is_trained = any(trial.spec.is_trained for trial in found.sweep.trials)
    return [
        *(_best(found) if is_trained else []),
        *(_at_chance(found.sweep, found.results) if is_trained else []),
        *_gradients(found.costs),
        *_against_baseline(found.compared),
        *_still_odes(found.judged),
        *_front(found),
        *_claims(found.sweep, found.checked),
        *_published(found.published),
        *_machines(found),
        *(_cost(found) if is_trained else []),
    ]


def listed(lines: Iterable[AnswerLine]) -> str:
    """An answer as a list in Markdown."""
    return "\n".join(f"- {bold(f'{what}:')} {text}" for what, text in lines)


def _best(found: Findings) -> list[AnswerLine]:
    """The best configuration of each data set, and whether it is clearly ahead of the next."""
    return [
        (f"Best{_on(found.sweep, name)}", text)
        for name, rows in found.results.groupby("data.name", sort=False)
        for text in _best_of(found, rows)
    ]


def _on(sweep: Sweep, data: object) -> str:
    """The data set in a title, if there are several."""
    return f" on `{data}`" if "data.name" in sweep.varying else ""


def _best_of(found: Findings, frame: pd.DataFrame) -> list[str]:
    sweep, judged = found.sweep, found.judged
    done = frame[frame[OUTCOME] == TrialOutcome.FINISHED]
    if done.empty or sweep.headline not in done:
        return []
    means = done.groupby(CELL, sort=False)[sweep.headline].mean().dropna()
    ranked = means.sort_values(ascending=not sweep.higher_is_better, kind="stable").index
    of_cells, trials = by_seed(frame, sweep.headline), frame[CELL].value_counts()
    values = [of_cells[cell] for cell in ranked[:2]]
    texts = [
        f"`{cell}`, {measured_with_unit(sweep.metric, each)}"
        for cell, each in zip(ranked, values, strict=False)
    ]
    missing = [
        f" of {trials[cell]}" if len(each) < trials[cell] else ""
        for cell, each in zip(ranked, values, strict=False)
    ]
    if not texts:
        return []
    metric = str(sweep.metric).replace("_", " ")
    first = f"{texts[0]} test {metric} (n = {len(values[0])}{missing[0]})"
    if len(judged):
        words = {*judged.loc[judged[CELL] == ranked[0], "verdict"]}
        first += ", but it is not an ODE" if words == {VerdictWord.RESNET} else ""
    if len(texts) < 2:
        return [f"{first}."]
    second = texts[1] + (f" (n = {len(values[1])}{missing[1]})" if missing[1] else "")
    return [f"{first}. {_lead(values, second, 1 if sweep.higher_is_better else -1)}"]


def _lead(values: Sequence[pd.Series[float]], second: str, sign: int) -> str:
    """Whether the best is clearly ahead of the second, by the paired test of their seeds.

    `sign` is -1 if lower is better.
    """
    difference = paired(*values)
    if difference is not None and sign * difference.mean < 0:
        # Each mean is over the seeds that finished, which are not the same seeds.
        seeds = counted(difference.n, "seed")
        return f"Second best: {second}, which is ahead on the {seeds} that finished in both."
    if difference is None or difference.n < FEWEST_PAIRS:
        why = f"with fewer than {FEWEST_PAIRS} seeds, its lead was not tested"
        return f"Second best: {second} ({why})."
    if difference.has_no_interval:
        return f"Second best: {second} (every seed gives the same lead, so it was not tested)."
    word = "clearly" if difference.p < SIGNIFICANT else "not clearly"
    p = f"paired t-test, p = {probability(difference.p)}, not corrected"
    return f"It is {word} ahead of the second best, {second} ({p})."


def _at_chance(sweep: Sweep, frame: pd.DataFrame) -> list[AnswerLine]:
    """The configurations no better than always predicting the most common class."""
    done = frame[frame[OUTCOME] == TrialOutcome.FINISHED]
    if "chance" not in done or sweep.headline not in done:
        return []
    means = done.groupby(CELL, sort=False)[[sweep.headline, "chance"]].mean().dropna()
    ahead = (means[sweep.headline] - means["chance"]) * (1 if sweep.higher_is_better else -1)
    cells = list(means.index[ahead <= sweep.margin + ACCURACY_ROUNDING])
    if not cells:
        return []
    margin = margin_text(sweep.metric, sweep.margin)
    return [("No better than chance", f"{_named(cells)} (margin {margin}).")]


def _against_baseline(compared: Sequence[BaselineComparison]) -> list[AnswerLine]:
    if not compared:
        return []
    title = "[Against the baseline](#against-the-baseline)"
    if {each.reading for each in compared} == {BaselineReading.UNCLEAR}:
        one = "the other configuration does not differ clearly from its baseline."
        none = "neither of the 2" if len(compared) == 2 else f"none of the {len(compared)}"
        many = f"{none} configurations differs clearly from its baseline."
        return [(title, one if len(compared) == 1 else many)]
    parts = _counts_text((each.reading for each in compared), BaselineReading)
    return [(title, f"{parts} (of {counted(len(compared), 'configuration')}).")]


def _still_odes(judged: pd.DataFrame) -> list[AnswerLine]:
    """How many trained networks are ODEs, and which configurations have some that are not."""
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


def _claims(sweep: Sweep, checked: Sequence[Checked]) -> list[AnswerLine]:
    size = sweep.made.size
    where = f" (in the {size} form)" if size != "full" else ""
    lines: list[AnswerLine] = []
    for name, has_source in (("[Claims](#claims)", True), ("[Expectations](#expectations)", False)):
        counts = Counter(each.text for each in checked if each.has_source is has_source)
        parts = _enumerated([f"{count} {text}" for text, count in counts.items()])
        lines += [(name, f"{parts}{where}.")] if counts else []
    return lines


def _published(published: Sequence[Compared]) -> list[AnswerLine]:
    readings = [each.reading for each in published if each.reading in COMPARED]
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
    if ran.empty:
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


def _gradients(costs: pd.DataFrame) -> list[AnswerLine]:
    """Which gradients were exact, and which were the fastest and the lightest after backprop."""
    if costs.empty:
        return []
    others = ways(costs)
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
