"""The paragraph that a report opens with: what the sweep found, from its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from nodebench.report.analysis.agreement import COMPARED
from nodebench.report.analysis.agreement import Reading as Agrees
from nodebench.report.analysis.baseline import Comparison, Reading, by_seed
from nodebench.report.analysis.claims import Checked
from nodebench.report.analysis.findings import Findings
from nodebench.report.analysis.formatting import measured, unit
from nodebench.report.analysis.published import Compared
from nodebench.report.analysis.verdict import ODE, RESNET, ROUNDING, UNDECIDED
from nodebench.store.result import FINISHED
from nodebench.sweep import Sweep

READINGS: Mapping[str, str] = {
    Reading.BETTER: "better",
    Reading.WORSE: "worse",
    Reading.UNCLEAR: "without a clear difference",
    Reading.SAME: "the same",
    Reading.ALIKE: "with the same difference in every pair (not tested)",
    Reading.TOO_FEW: "with too few seeds",
}
AGREEMENTS: Mapping[str, str] = {
    Agrees.MATCHES: "matching",
    Agrees.DIFFERS: "differing",
    Agrees.UNCERTAIN: "too uncertain to say",
}

MOST_NAMED = 4
"""Cells in a sentence; of more, a figure tells better."""


def answer(found: Findings) -> str:
    """Sentences, each of which a table below bears out; those that have nothing to say are not."""
    sentences = [
        *_best(found.sweep, found.results),
        *_at_chance(found.sweep, found.results),
        *_beside_baseline(found.compared),
        *_verdicts(found.judged),
        *(_frontier(found.frontier) if len(found.timed) else []),
        *_claims(found.sweep, found.checked),
        *_published(found.published),
    ]
    return " ".join(sentences)


def _best(sweep: Sweep, frame: pd.DataFrame) -> list[str]:
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
    done = frame[frame["outcome"] == FINISHED]
    if done.empty or data.headline not in done:
        return []
    means = done.groupby("cell", sort=False)[data.headline].mean().dropna()
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


def _at_chance(sweep: Sweep, frame: pd.DataFrame) -> list[str]:
    """The cells that have learned nothing: the commonest class, always named, does as well."""
    data = sweep.trials[0].spec.data
    done = frame[frame["outcome"] == FINISHED]
    if "chance" not in done or data.headline not in done:
        return []
    means = done.groupby("cell", sort=False)[[data.headline, "chance"]].mean().dropna()
    ahead = (means[data.headline] - means["chance"]) * (1 if data.higher_is_better else -1)
    cells = list(means.index[ahead <= sweep.margin + ROUNDING])
    if not cells:
        return []
    few = len(cells) <= MOST_NAMED
    which = _listed([f"`{cell}`" for cell in cells]) if few else f"{len(cells)} cells"
    return [f"No better than chance (margin {sweep.margin:g}): {which}."]


def _beside_baseline(compared: Sequence[Comparison]) -> list[str]:
    parts = _counted((each.reading for each in compared), READINGS)
    return [f"Of {len(compared)} compared with the baseline, {parts}."] if compared else []


def _verdicts(judged: pd.DataFrame) -> list[str]:
    if judged.empty:
        return []
    parts = _counted(judged["verdict"], {word: word for word in (ODE, RESNET, UNDECIDED)})
    return [f"Verdicts on {len(judged)} trained networks under finer solvers: {parts}."]


def _counted(found: Iterable[str], names: Mapping[str, str]) -> str:
    """How often each word was found, in the names' order: `2 better and 1 worse`."""
    counts = Counter(found)
    return _listed([f"{counts[word]} {name}" for word, name in names.items() if counts[word]])


def _frontier(frontier: pd.DataFrame) -> list[str]:
    cells = [f"`{cell}`" for cell in frontier.loc[frontier["front_seconds"], "cell"]]
    if len(frontier) < 2 or not 0 < len(cells) <= MOST_NAMED:
        return []
    return [f"For its time per epoch, none surpasses {_listed(cells)}."]


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), *words[-1:]]) if len(words) > 1 else "".join(words)


def _claims(sweep: Sweep, checked: Sequence[Checked]) -> list[str]:
    size = sweep.made.size
    where = f", in the {size} form" if size != "full" else ""
    sentences = []
    for name, has_source in (("the claims stated", True), ("our expectations", False)):
        said = [each.said for each in checked if each.has_source is has_source]
        parts = _counted(said, {word: word for word in said})
        sentences += [f"Of {name}{where}: {parts}."] if said else []
    return sentences


def _published(published: Sequence[Compared]) -> list[str]:
    readings = [each.reading for each in published if each.reading in COMPARED]
    parts = _counted(readings, AGREEMENTS)
    return [f"Of published numbers that compare ({len(readings)}): {parts}."] if readings else []
