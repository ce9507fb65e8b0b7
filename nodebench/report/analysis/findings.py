"""The results of a sweep in the store, as tables, and comparisons between its cells."""

from __future__ import annotations

import pandas as pd

from nodebench.report.analysis import frames
from nodebench.report.analysis.baseline import against_baseline
from nodebench.report.analysis.claims import checked_claims
from nodebench.report.analysis.columns import TIMED_SECONDS, TRIAL, with_whole_numbers
from nodebench.report.analysis.gradients import gradient_costs, with_own_gradients
from nodebench.report.analysis.pareto import pareto_table
from nodebench.report.analysis.published import compared_numbers
from nodebench.report.machines import machine_frame
from nodebench.spec.vocabulary import VERDICT_NUMBERS
from nodebench.store import Store
from nodebench.sweep import Sweep


class Findings:
    """Everything that a report is made of: the tidy tables, and comparisons between cells."""

    def __init__(self, sweep: Sweep, store: Store):
        self.sweep = sweep
        self.epochs = frames.epoch_frame(sweep, store)
        self.evaluated = frames.evaluation_frame(sweep, store)
        self.judged = frames.verdict_frame(sweep, store)
        self.batches = frames.batch_frame(sweep, store)
        self.gradients = frames.gradient_frame(sweep, store)
        self.timed = frames.timing_frame(sweep, store)
        self.machines = machine_frame(sweep, store)
        self.results = _joined_results(sweep, store, self.judged, self.timed, self.gradients)
        self.costs = gradient_costs(sweep, self.gradients, self.timed)
        self.compared = against_baseline(sweep, self.results)
        self.checked = checked_claims(sweep, self.results)
        self.published = compared_numbers(sweep, self.results, self.judged)
        self.frontier = pareto_table(sweep, self.results, is_busy=frames.timed_busy(self.timed))

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that are kept next to a report's page, by their files' names."""
        tables = {
            "results": self.results,
            "evaluations": self.evaluated,
            "batches": self.batches,
            "gradients": self.gradients,
            "timings": self.timed,
            "machines": self.machines,
        }
        return {name: with_whole_numbers(frame, self.sweep) for name, frame in tables.items()}


def all_results(sweep: Sweep, store: Store) -> pd.DataFrame:
    """The table of `frames.result_frame`, with verdicts and their numbers, and `timed_epoch_s`."""
    return _joined_results(
        sweep,
        store,
        frames.verdict_frame(sweep, store),
        frames.timing_frame(sweep, store),
        frames.gradient_frame(sweep, store),
    )


def _joined_results(
    sweep: Sweep,
    store: Store,
    judged: pd.DataFrame,
    timed: pd.DataFrame,
    gradients: pd.DataFrame,
) -> pd.DataFrame:
    """The table of `frames.result_frame` with numbers from a trial's other tables."""
    results = frames.result_frame(sweep, store)
    if not judged.empty:
        numbers = judged[[TRIAL, "verdict", *VERDICT_NUMBERS]]
        results = results.merge(numbers, on=TRIAL, how="left")
    if not timed.empty:
        machine = timed["machine"].mode().iloc[0]  # has the most timings; others do not compare
        names = [name for name in (TIMED_SECONDS, "step_memory_bytes") if name in timed]
        seconds = timed.loc[timed["machine"] == machine, [TRIAL, *names]].drop_duplicates(TRIAL)
        results = results.merge(seconds, on=TRIAL, how="left")
    return with_own_gradients(sweep, results, gradients)
