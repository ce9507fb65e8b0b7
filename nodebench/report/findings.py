"""What the store has of a sweep, as tables, and what its cells say beside each other."""

from __future__ import annotations

import pandas as pd

from nodebench.report import frames
from nodebench.report.comparison_tables import published_numbers
from nodebench.report.comparisons import against_baseline, checked_claims
from nodebench.report.frontier import frontier
from nodebench.store import Store
from nodebench.sweep import Sweep
from nodebench.verdict import NUMBERS


class Findings:
    """Everything that a report is made of: the tidy tables, and comparisons between cells."""

    def __init__(self, sweep: Sweep, store: Store):
        self.sweep = sweep
        self.epochs = frames.epochs(sweep, store)
        self.evaluated = frames.evaluations(sweep, store)
        self.judged = frames.verdicts(sweep, store)
        self.gradients = frames.gradients(sweep, store)
        self.timed = frames.timings(sweep, store)
        self.results = _with_verdicts(frames.results(sweep, store), self.judged)
        self.compared = against_baseline(sweep, self.results)
        self.checked = checked_claims(sweep, self.results)
        self.published = published_numbers(sweep, self.results, self.judged)
        self.frontier = frontier(sweep, self.results, self.timed)

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Those that are kept beside a report's page, by their files' names."""
        return {
            "results": self.results,
            "evaluations": self.evaluated,
            "gradients": self.gradients,
            "timings": self.timed,
        }


def results_with_verdicts(sweep: Sweep, store: Store) -> pd.DataFrame:
    """The table of `frames.results`, and the verdict on each trial with its numbers."""
    return _with_verdicts(frames.results(sweep, store), frames.verdicts(sweep, store))


def _with_verdicts(results: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    if judged.empty:
        return results
    numbers = judged[["trial", "verdict", *NUMBERS]].rename(columns={"trial": "id"})
    return results.merge(numbers, on="id", how="left")
