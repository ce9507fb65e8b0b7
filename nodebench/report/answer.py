"""The paragraph that a report opens with: what the sweep found, from its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from nodebench.report.comparisons import (
    BETTER,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    TOO_FEW,
    UNCLEAR,
    WORSE,
    Checked,
    Comparison,
    by_seed,
)
from nodebench.report.findings import Findings
from nodebench.report.statistics import measured, unit
from nodebench.sweep import Sweep
from nodebench.trial_folder import FINISHED
from nodebench.verdict import ODE, RESNET, UNDECIDED

READINGS = {
    BETTER: "better",
    WORSE: "worse",
    UNCLEAR: "without a clear difference",
    TOO_FEW: "with too few seeds",
}
CLAIMS = {REPRODUCED: "reproduced", NOT_REPRODUCED: "not reproduced", NOT_RUN: "not run"}

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
        *_claims(found.checked),
        *_published(found.published),
    ]
    return " ".join(sentences)


def _best(sweep: Sweep, frame: pd.DataFrame) -> list[str]:
    """The cell with the best mean, and whether the next is clearly behind."""
    data = sweep.trials[0].spec.data
    done = frame[frame["outcome"] == FINISHED]
    if done.empty or data.headline not in done:
        return []
    means = done.groupby("cell", sort=False)[data.headline].mean().dropna()
    ranked = means.sort_values(ascending=not data.higher_is_better, kind="stable")
    if ranked.empty:
        return []
    best = str(ranked.index[0])
    values = by_seed(frame, best, data.headline)
    what = f"test {data.metric} {measured(data.metric, values)}{unit(data.metric)}"
    if len(ranked) == 1:
        return [f"`{best}`: {what} (n = {len(values)})."]
    word = "highest" if data.higher_is_better else "lowest"
    best_of = f"The {word} test {data.metric} is that of `{best}`, "
    numbers = f"{measured(data.metric, values)}{unit(data.metric)} (n = {len(values)})"
    second, others = str(ranked.index[1]), by_seed(frame, str(ranked.index[1]), data.headline)
    return [
        f"{best_of}{numbers}; next is `{second}`, "
        f"{measured(data.metric, others)}{unit(data.metric)}."
    ]


def _at_chance(sweep: Sweep, frame: pd.DataFrame) -> list[str]:
    """The cells that have learned nothing: the commonest class, always named, does as well."""
    data = sweep.trials[0].spec.data
    done = frame[frame["outcome"] == FINISHED]
    if "chance" not in done or data.headline not in done:
        return []
    means = done.groupby("cell", sort=False)[[data.headline, "chance"]].mean().dropna()
    cells = list(means.index[means[data.headline] - means["chance"] <= sweep.margin])
    if not cells:
        return []
    few = len(cells) <= MOST_NAMED
    which = _listed([f"`{cell}`" for cell in cells]) if few else f"{len(cells)} cells"
    return [f"No better than chance, to within {100 * sweep.margin:g} %: {which}."]


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


def _claims(checked: Sequence[Checked]) -> list[str]:
    parts = _counted((each.result for each in checked), CLAIMS)
    return [f"Of the claims stated: {parts}."] if checked else []


def _published(published: pd.DataFrame) -> list[str]:
    if published.empty:
        return []
    counts = Counter(word.partition(":")[0] for word in published["reading"])
    comparable = counts["matches"] + counts["differs"]
    if not comparable:
        return []
    return [f"Of {comparable} published numbers that compare, {counts['matches']} match ours."]
