"""The paragraph that a report opens with: what the sweep found, from its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

import pandas as pd

from nodebench.report.analysis.agreement import COMPARED
from nodebench.report.analysis.baseline import BaselineComparison, BaselineReading, by_seed
from nodebench.report.analysis.claims import Checked
from nodebench.report.analysis.columns import CELL, OUTCOME
from nodebench.report.analysis.findings import Findings
from nodebench.report.analysis.formatting import measured, unit
from nodebench.report.analysis.gradients import ways
from nodebench.report.analysis.published import Compared
from nodebench.report.analysis.verdict import ACCURACY_ROUNDING, VerdictWord
from nodebench.store.result import FINISHED
from nodebench.sweep import Sweep

MOST_CELLS_NAMED = 4
"""Cells in a sentence; of more, a figure tells better."""


def opening_paragraph(found: Findings) -> str:
    """Sentences, each of which a table below bears out; those that have nothing to say are not."""
    sentences = [
        *_best_cells(found.sweep, found.results),
        *_cells_at_chance(found.sweep, found.results),
        *_gradients_sentence(found.costs),
        *_beside_baseline(found.compared),
        *_verdicts_sentence(found.judged),
        *(_frontier_sentence(found.frontier) if len(found.timed) else []),
        *_claims_sentences(found.sweep, found.checked),
        *_published(found.published),
    ]
    return " ".join(sentences)


def _best_cells(sweep: Sweep, frame: pd.DataFrame) -> list[str]:
    """The cells with the best and the second mean, of each data set."""
    if "data.name" not in sweep.varying:
        return _best_of(sweep, frame, "")
    return [
        sentence
        for name, rows in frame.groupby("data.name", sort=False)
        for sentence in _best_of(sweep, rows, f"On `{name}`, the")
    ]


def _best_of(sweep: Sweep, frame: pd.DataFrame, opening: str) -> list[str]:
    data = sweep.trials[0].spec.data
    done = frame[frame[OUTCOME] == FINISHED]
    if done.empty or data.headline not in done:
        return []
    means = done.groupby(CELL, sort=False)[data.headline].mean().dropna()
    ranked = means.sort_values(ascending=not data.higher_is_better, kind="stable").index
    numbers = []
    for cell in ranked[:2]:
        values = by_seed(frame, cell, data.headline)
        numbers.append(f"{measured(data.metric, values)}{unit(data.metric)} (n = {len(values)})")
    if len(numbers) < 2:
        return [
            f"`{cell}`: test {data.metric} {text}."
            for cell, text in zip(ranked, numbers, strict=True)
        ]
    word = "highest" if data.higher_is_better else "lowest"
    return [
        f"{opening or 'The'} {word} test {data.metric} is that of `{ranked[0]}`, {numbers[0]}; "
        f"next is `{ranked[1]}`, {numbers[1]}."
    ]


def _cells_at_chance(sweep: Sweep, frame: pd.DataFrame) -> list[str]:
    """The cells that have learned nothing: the commonest class, always named, does as well."""
    data = sweep.trials[0].spec.data
    done = frame[frame[OUTCOME] == FINISHED]
    if "chance" not in done or data.headline not in done:
        return []
    means = done.groupby(CELL, sort=False)[[data.headline, "chance"]].mean().dropna()
    ahead = (means[data.headline] - means["chance"]) * (1 if data.higher_is_better else -1)
    cells = list(means.index[ahead <= sweep.margin + ACCURACY_ROUNDING])
    if not cells:
        return []
    few = len(cells) <= MOST_CELLS_NAMED
    which = _enumerated([f"`{cell}`" for cell in cells]) if few else f"{len(cells)} cells"
    return [f"No better than chance (margin {sweep.margin:g}): {which}."]


def _beside_baseline(compared: Sequence[BaselineComparison]) -> list[str]:
    parts = _counts_text((each.reading for each in compared), BaselineReading)
    return [f"Of {len(compared)} compared with the baseline, {parts}."] if compared else []


def _verdicts_sentence(judged: pd.DataFrame) -> list[str]:
    if judged.empty:
        return []
    parts = _counts_text(judged["verdict"], VerdictWord)
    return [f"Verdicts on {len(judged)} trained networks under finer solvers: {parts}."]


def _gradients_sentence(costs: pd.DataFrame) -> list[str]:
    """Which gradients were exact, and of those next to backprop the cheapest and the lightest."""
    if costs.empty:
        return []
    found = ways(costs)
    others = found[found["way"] != "backprop"]
    exact = [f"`{way}`" for way in others.loc[others["is_exact"], "way"]]
    sentences = [f"As exact as backprop, to rounding: {_enumerated(exact) or 'no other'}."]
    for word, column, of in (
        ("cheapest", "of_seconds", "seconds"),
        ("lightest", "of_memory", "memory"),
    ):
        known = others.dropna(subset=[column])
        if len(known):
            least = known.sort_values(column, kind="stable").iloc[0]
            error = least["from_backprop"]
            how = "exact" if least["is_exact"] else f"off backprop by up to {error:.1g}"
            ratio = f"{least[column]:.2g} × backprop's {of}"
            sentences.append(f"The {word} next to it is `{least['way']}`, {ratio}, {how}.")
    return sentences


class _Word(Protocol):
    """A member of an enumeration that says how a sentence counts what it is said of."""

    @property
    def text(self) -> str: ...

    def __hash__(self) -> int: ...


def _counts_text(found: Iterable[object], words: Iterable[_Word]) -> str:
    """How often each word was found, in the words' order: `2 better and 1 worse`."""
    counts = Counter(found)
    return _enumerated([f"{counts[word]} {word.text}" for word in words if counts[word]])


def _frontier_sentence(frontier: pd.DataFrame) -> list[str]:
    cells = [f"`{cell}`" for cell in frontier.loc[frontier["front_seconds"], CELL]]
    if len(frontier) < 2 or not 0 < len(cells) <= MOST_CELLS_NAMED:
        return []
    return [f"For its time per epoch, none surpasses {_enumerated(cells)}."]


def _enumerated(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), *words[-1:]]) if len(words) > 1 else "".join(words)


def _claims_sentences(sweep: Sweep, checked: Sequence[Checked]) -> list[str]:
    size = sweep.made.size
    where = f", in the {size} form" if size != "full" else ""
    sentences = []
    for name, has_source in (("the claims stated", True), ("our expectations", False)):
        counts = Counter(each.text for each in checked if each.has_source is has_source)
        parts = _enumerated([f"{count} {text}" for text, count in counts.items()])
        sentences += [f"Of {name}{where}: {parts}."] if counts else []
    return sentences


def _published(published: Sequence[Compared]) -> list[str]:
    readings = [each.reading for each in published if each.reading in COMPARED]
    parts = _counts_text(readings, COMPARED)
    return [f"Of published numbers that compare ({len(readings)}): {parts}."] if readings else []
