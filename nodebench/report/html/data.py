"""The data and the charts of a sweep in report.html."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from nodebench.errors import TrialOutcome
from nodebench.report import notes
from nodebench.report.analysis.columns import (
    BUDGET,
    CELL,
    MISSING,
    OUTCOME,
    TIMED_SECONDS,
    TRIAL,
    as_published,
)
from nodebench.report.analysis.findings import Findings
from nodebench.report.analysis.frames import robustness_curves
from nodebench.report.analysis.statistics import shown_half_width, shown_half_widths
from nodebench.report.figures.curves import CURVES
from nodebench.report.figures.drawing import left_out
from nodebench.report.figures.style import hex_colors
from nodebench.report.html import charts
from nodebench.report.html.charts import CHART, Chart
from nodebench.report.html.measures import IN_TIME, TIMES, AxisChoice, as_columns, axes
from nodebench.report.markdown import HtmlOnly

MOST_ROWS, MOST_ROWS_A_TRIAL, FEWEST_ROWS_A_TRIAL = 6000, 150, 20
"""Limits on the embedded epochs: in total, and the most and the fewest of one trial."""

DIGITS_OF_CURVES = 5

INTERVAL = " ±"
"""The suffix of a column with half the interval of a mean."""

COSTS_FIRST = (TIMED_SECONDS, "nfe_forward", "epoch_s")
"""The costs that the chart of configurations offers first."""


class Explored:
    """The rows and the charts that the page of a sweep's findings can show."""

    def __init__(self, found: Findings):
        self.found = found
        self.problems: list[str] = []

    @cached_property
    def charts(self) -> dict[str, Chart]:
        """Name -> chart, without those that would be empty or cannot be built."""
        found = {}
        for build in (self._costs, self._epochs, self._solvers, self._gradients):
            with left_out("chart", self.problems):
                chart = build()
                if chart.is_drawn:
                    found[chart.name] = chart
        return found

    def place(self, name: str) -> list[HtmlOnly]:
        """The placeholder of a chart among the page's sections, if there is something to draw."""
        chart = self.charts.get(name)
        return [HtmlOnly(f"![{chart.title}]({CHART}{name})")] if chart else []

    def embedded(self) -> dict[str, Any]:
        """Everything that the page's script reads, as values for JSON."""
        frames = {
            "configurations": self._configurations,
            "epochs": self._by_epoch,
            "means_by_epoch": self._means_by_epoch,
            "solvers": self._curves,
            "gradients": self.found.costs,
        }
        return {
            "settings": sorted(
                {path for trial in self.found.sweep.trials for path in trial.settings}
            ),
            "times": [*TIMES],
            "headline": self.found.sweep.headline,
            "shown": self._first_shown(),
            "first_only": list(charts.DATA_SETS),
            "colors": {name: hex_colors(self._values(name)) for name in self._series},
            "charts": {name: chart.described() for name, chart in self.charts.items()},
            "rows": {"trials": as_columns(as_published("results", self.found.results))}
            | {name: as_columns(frame, DIGITS_OF_CURVES) for name, frame in frames.items()},
        }

    @property
    def _data(self) -> Any:
        return self.found.sweep.trials[0].spec.data

    @property
    def _series(self) -> dict[str, str]:
        """Column -> title, for columns that colours can encode, such as the configuration."""
        known = self.found.results
        headings = {p: h for p, h in self.found.sweep.headings.items() if p in known}
        ways = {"way": "gradient", "budget": "budget"} if len(self.found.costs) else {}
        return {CELL: "configuration", **headings, **ways}

    def _values(self, name: str) -> list[str]:
        """The values of a column, over the trials that have begun or over gradients."""
        results, epochs = self.found.results, self.found.epochs
        begun = set(epochs[TRIAL]) if len(epochs) else set()
        has_begun = (results[OUTCOME] != MISSING) | results[TRIAL].isin(begun)
        frame = self.found.costs if name not in results else results[has_begun]
        return [_text(value) for value in dict.fromkeys(frame[name].dropna().tolist())]

    @cached_property
    def _measures(self) -> list[AxisChoice]:
        return axes(self.found.results, self.found.sweep, always=self.found.sweep.headline)

    @cached_property
    def _configurations(self) -> pd.DataFrame:
        """One row per cell: its settings, and each measure's mean and half its interval."""
        results = self.found.results
        done = results[results[OUTCOME] == TrialOutcome.FINISHED]
        settings = [path for path in self.found.sweep.headings if path in results]
        numbers = [each.field for each in self._measures if each.field not in settings]
        rows = []
        for cell, group in done.groupby(CELL, sort=False):
            first = group[settings].iloc[0]
            row = {CELL: cell, "n": len(group), **{path: first[path] for path in settings}}
            for name in numbers:
                values = group[name].dropna().astype(float)
                row[name] = values.mean() if len(values) else None
                row[f"{name}{INTERVAL}"] = shown_half_width(values)
            rows.append(row)
        return pd.DataFrame(rows)

    def _first_shown(self) -> list[str]:
        """The cells that are switched on initially: all, or the best on each data set."""
        frame, headline = self._configurations, self.found.sweep.headline
        cells = self._values(CELL)
        if len(cells) <= charts.MOST_SHOWN or headline not in frame:
            return cells[: charts.MOST_SHOWN]
        ranked = frame.sort_values(headline, ascending=not self.found.sweep.higher_is_better)
        data = dict(zip(self.found.results[CELL], self.found.results["data.name"], strict=True))
        return [*ranked.groupby(ranked[CELL].map(data)).head(charts.MOST_SHOWN)[CELL]]

    def _costs(self) -> Chart:
        measures = self._measures if len(self._configurations) else []
        of_cost = [each.field for each in measures if each.field in COSTS_FIRST]
        lacks_cost = bool(of_cost) and self._configurations[of_cost].isna().any(axis=None)
        return Chart(
            name="costs",
            title="Configurations",
            note=self._note(notes.COSTS_CHART, *([notes.LINES_ACROSS] if lacks_cost else [])),
            rows="configurations",
            x=_first(measures, of_cost),
            y=measures,
            series=self._series_of_trials,
            layers=charts.POINTS,
            singles="trials",
            without_x=charts.ACROSS,
            filters=charts.DATA_SETS,
            figures=("frontier",),
        )

    def _note(self, *parts: str) -> str:
        return notes.of_seeds(" ".join(parts), self.found.sweep.most_seeds)

    @property
    def _series_of_trials(self) -> dict[str, str]:
        return {name: title for name, title in self._series.items() if name in self.found.results}

    @cached_property
    def _by_epoch(self) -> pd.DataFrame:
        """Some epochs of each trial, evenly spaced; up to half of them have the headline metric."""
        epochs, trials = self.found.epochs, self.found.sweep.trials
        if epochs.empty:
            return epochs
        if "epoch_s" in epochs:  # absent if nothing was trained, only evaluated
            epochs = epochs.assign(so_far_s=epochs.groupby(TRIAL)["epoch_s"].cumsum())
        most = min(MOST_ROWS_A_TRIAL, max(FEWEST_ROWS_A_TRIAL, MOST_ROWS // len(trials)))
        parts = [
            _thinned(rows, most, self.found.sweep.headline)
            for _, rows in epochs.groupby(TRIAL, sort=False)
        ]
        settings = {path for trial in trials for path in trial.settings}
        return pd.concat(parts).drop(columns=[*settings & set(epochs) - {"seed"}])

    @cached_property
    def _means_by_epoch(self) -> pd.DataFrame:
        """One row per cell and epoch: each measure's mean over seeds, and half its interval."""
        frame, sweep = self._by_epoch, self.found.sweep
        if frame.empty:
            return frame
        groups = frame.groupby([CELL, "epoch"], sort=False)
        columns = {"n": groups.size()}
        for axis in axes(frame.drop(columns=["epoch", "seed"]), sweep, always=sweep.headline):
            means = shown_half_widths(groups[axis.field])
            columns[axis.field] = means["mean"]
            if axis.field not in IN_TIME:
                columns[f"{axis.field}{INTERVAL}"] = means["width"]
        return pd.DataFrame(columns).reset_index()

    def _epochs(self) -> Chart:
        frame, sweep = self._by_epoch, self.found.sweep
        over = axes(frame, sweep, IN_TIME) if len(frame) else []
        every = axes(frame, sweep, always=sweep.headline) if len(frame) else []
        return Chart(
            name="epochs",
            title="By epoch",
            note=self._note(notes.EPOCHS_CHART),
            rows="means_by_epoch",
            x=over,
            y=[each for each in every if each.field not in (*IN_TIME, "seed")],
            series=self._series_of_trials,
            layers=charts.LINES_BY_EPOCH,
            singles="epochs",
            filters=charts.DATA_SETS,
            figures=tuple(CURVES),
        )

    @cached_property
    def _curves(self) -> pd.DataFrame:
        """The results of trained networks under other solvers, aggregated over seeds."""
        if self.found.evaluated.empty:
            return pd.DataFrame()
        frame = robustness_curves(self.found.evaluated)
        if frame.empty:
            return frame
        return frame.assign(**{f"value{INTERVAL}": frame["spread"], BUDGET: frame[BUDGET].map(str)})

    def _solvers(self) -> Chart:
        frame, sweep = self._curves, self.found.sweep
        judged = axes(frame, sweep, ("value", "solver_error")) if len(frame) else []
        spent = axes(frame, sweep, ("nfe", "steps", "forward_s", "solver_error")) if judged else []
        return Chart(
            name="solvers",
            title="Under other solvers",
            note=self._note(notes.SOLVERS_CHART),
            rows="solvers",
            x=spent,
            y=judged,
            series=self._series_of_trials,
            layers=charts.LINES_BY_SOLVER,
            filters={"method": "test solver", **charts.DATA_SETS},
            figures=("robustness", "steps", "work-precision"),
        )

    def _gradients(self) -> Chart:
        frame, sweep = self.found.costs, self.found.sweep
        spent = ("memory", "seconds", "nfe_forward", "nfe_backward")
        x = axes(frame, sweep, spent) if len(frame) else []
        return Chart(
            name="gradients",
            title="Gradients",
            note=notes.GRADIENTS_CHART,
            rows="gradients",
            x=x,
            y=axes(frame, sweep, ("error", "state_error", *spent)) if x else [],
            series={"way": "gradient", "budget": "budget", CELL: "configuration"},
            layers=charts.POINTS[1:],
            filters={"problem": "problem"},
            figures=("gradient-costs",),
        )


def _thinned(rows: pd.DataFrame, most: int, headline: str) -> pd.DataFrame:
    """At most `most` rows of a trial, including the last."""
    if len(rows) <= most:
        return rows
    measured = rows.index[rows[headline].notna()] if headline in rows else rows.index[:0]
    measured = _spread(measured, most // 2)
    return rows.loc[measured.union(_spread(rows.index, most - len(measured)))]


def _spread(index: pd.Index[int], most: int) -> pd.Index[int]:
    """At most `most` entries of an index, evenly spaced from the first to the last."""
    places = np.unique(np.linspace(0, len(index) - 1, min(most, len(index))).astype(int))
    return index[places] if len(index) else index


def _first(measures: list[AxisChoice], names: list[str]) -> list[AxisChoice]:
    """The axes, with those in `names` first."""
    ahead = [each for each in measures if each.field in names]
    return [*ahead, *(each for each in measures if each.field not in names)]


def _text(value: object) -> str:
    """A value of a series as the page's script writes it: 2.0 as 2."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
