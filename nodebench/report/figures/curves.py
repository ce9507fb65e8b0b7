"""Figures by epoch: metrics and adaptation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nodebench.report import notes
from nodebench.report.analysis.columns import CELL, TRIAL
from nodebench.report.analysis.formatting import unit
from nodebench.report.analysis.statistics import mean_intervals, possible_values
from nodebench.report.figures.style import (
    ON_LOG_AXES,
    Color,
    Drawn,
    colors_of,
    in_lines,
    in_percent,
    save,
)
from nodebench.spec.training import REGULARIZER_TERMS
from nodebench.sweep import Sweep
from nodebench.sweep.labels import figure_labels, labeled

CURVES = {
    "accuracy": ("test_accuracy", f"test accuracy{unit('accuracy')}"),
    "error": ("test_error", "test error"),
    "loss": ("train_loss", "training loss"),
    "nfe_forward": ("nfe_forward", "evaluations per forward pass"),
    "nfe_backward": ("nfe_backward", "evaluations per backward pass"),
    **{
        f"regularizer_{name}": (
            f"regularizer_{name}",
            f"{name.replace('_', ' ')} term, without its weight",
        )
        for name in REGULARIZER_TERMS
    },
}

UNNAMED: Mapping[str, Any] = {"color": "0.8", "linewidth": 0.6, "linestyle": "-", "zorder": 1}
FEW_EPOCHS = 5  # or fewer have markers, and so has any line of a single point
MOST_LEGEND_ENTRIES = 16  # with more lines, only the best are named
LONGEST_FILE_NAME = 60
MOST_LINES = 6  # in one panel, with their bands
DATA_SET = "data.name"


def epoch_figures(sweep: Sweep, epochs: pd.DataFrame, folder: Path) -> list[Drawn]:
    """Draws every metric by epoch, with one line per cell and a band over its seeds."""
    drawn: list[Drawn] = []
    for name, (column, title) in CURVES.items():
        if column not in epochs or not epochs[column].fillna(0).any():
            continue
        if column.startswith("nfe") and epochs.groupby(TRIAL)[column].nunique().max() <= 1:
            continue  # that of a fixed-step solver, which a table shows better
        known = epochs.dropna(subset=[column])
        layout = _layout(sweep, known)
        save(_curve(layout, known, column, title), folder / name)
        caption = f"{title[0].upper()}{title[1:]} by epoch"
        drawn.append(Drawn([name], layout.note, caption))
    return drawn


def adaptation_figure(sweep: Sweep, epochs: pd.DataFrame, folder: Path) -> list[Drawn]:
    """Draws an adapted solver over training, and its accuracy: Ott et al. 2021, Figure 5.

    One line per cell, with a band over seeds. Nothing is drawn if no solver was adapted.
    """
    if "nfe_adaptation" not in epochs:
        return []
    data = epochs[epochs["nfe_adaptation"].notna()].copy()
    rows = {
        "train_accuracy": f"accuracy on training batches{unit('accuracy')}",
        "nfe_forward": "evaluations",
    }
    if "tol" in data:
        rows = {"tol": "tolerance"} | rows
    if "step_size" in data:
        spans = {trial.id: trial.spec.model.length for trial in sweep.trials}
        data["steps"] = data[TRIAL].map(spans) / data["step_size"]
        rows = {"steps": "steps"} | rows
    figure, grid = plt.subplots(
        len(rows), 1, figsize=(7, 2.1 * len(rows) + 0.4), sharex=True, layout="constrained"
    )
    colors = colors_of(data[CELL])
    for axes, (column, title) in zip(grid, rows.items(), strict=True):
        groups = data.groupby([CELL, "iteration"])[column]
        means = mean_intervals(groups, possible_values(column))
        sns.lineplot(
            means, x="iteration", y="mean", hue=CELL, palette=colors, estimator=None, linewidth=1,
            ax=axes, legend="auto" if axes is grid[0] else False,
        )  # fmt: skip
        _draw_bands(axes, means, "iteration", CELL, colors, alpha=0.2)
        axes.set(ylabel=title, yscale="log" if column == "tol" else "linear")
        in_percent(axes, column)
    grid[0].get_legend().set_title("")
    save(figure, folder / "adaptation")
    return [Drawn(["adaptation"], notes.of_seeds(notes.ADAPTATION, sweep.most_seeds))]


def file_names(values: Iterable[object]) -> dict[str, str]:
    """Value -> its part of a file name: some letters, digits, dots and hyphens; no two alike."""
    names: dict[str, str] = {}
    for value in dict.fromkeys(map(str, values)):
        name = re.sub(r"[^A-Za-z0-9.]+", "-", value)[:LONGEST_FILE_NAME].strip("-.")
        is_taken = name.lower() in map(str.lower, names.values())  # file systems may ignore case
        names[value] = f"{name}-{len(names)}" if is_taken or not name else name
    return names


def _curve(layout: _Layout, epochs: pd.DataFrame, column: str, title: str) -> Figure:
    data = epochs.assign(line=epochs[CELL].map(layout.lines))
    panels = [layout.panel] if layout.panel else []
    groups = data.groupby([*panels, "line", "epoch"])[column]
    means = mean_intervals(groups, possible_values(column))
    is_named, is_short = means["line"].isin(layout.colors), data["epoch"].nunique() <= FEW_EPOCHS
    grid = _named_lines(layout, means, is_short=is_short)
    for value, axes in grid.axes_dict.items() if layout.panel else [(None, grid.ax)]:
        is_here = means[layout.panel] == value if layout.panel else True
        if data["seed"].nunique() > 1:
            named = means[is_named & is_here]
            _draw_bands(axes, named, "epoch", "line", layout.colors, alpha=0.15)
        for _, line in means[~is_named & is_here].groupby("line"):
            marker = "." if is_short or len(line) == 1 else ""
            axes.plot(line["epoch"], line["mean"], marker=marker, **UNNAMED)
        for name, line in means[is_named & is_here].groupby("line"):
            if len(line) == 1 and not is_short:
                axes.plot(line["epoch"], line["mean"], "o", color=layout.colors[str(name)])
        if column in ON_LOG_AXES:
            axes.set_yscale("log")
        in_percent(axes, column)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if layout.panel:
            [heading] = figure_labels([f"{layout.heading} = {value}"]).values()
            axes.set_title(in_lines(heading))
    grid.set_axis_labels("epoch", title)
    if grid.legend is not None:
        grid.legend.set_title("")
    figure: Figure = grid.figure
    return figure


def _named_lines(layout: _Layout, means: pd.DataFrame, *, is_short: bool) -> sns.FacetGrid:
    """Draws the lines that the legend names, in panels if the layout has any."""
    present = [line for line in layout.colors if (means["line"] == line).any()]
    size: dict[str, Any] = {"height": 3.8, "aspect": 1.6}
    if layout.panel:
        panels = list(dict.fromkeys(means[layout.panel]))  # also those without named lines
        columns = {"col": layout.panel, "col_order": panels, "col_wrap": min(3, len(panels))}
        shares = {"sharey": layout.panel != DATA_SET}
        size = {"height": 3.4, "aspect": 1.2, "facet_kws": shares, **columns}
    return sns.relplot(
        data=means[means["line"].isin(present)],
        x="epoch",
        y="mean",
        hue="line",
        style="line",
        hue_order=present,
        style_order=present,
        palette=layout.colors,
        kind="line",
        markers=is_short,
        estimator=None,
        **size,
    )


def _draw_bands(
    axes: Axes, means: pd.DataFrame, x: str, hue: str, colors: Mapping[str, Any], alpha: float
) -> None:
    """Draws intervals of means; seaborn would take a hundred times as long to compute them."""
    for name, line in means.groupby(hue, sort=False):
        axes.fill_between(
            line[x], line["low"], line["high"], color=colors[str(name)], alpha=alpha, linewidth=0
        )


@dataclass(frozen=True)
class _Layout:
    """How a sweep's configurations are distinguished, in the same way in all figures.

    If they are too many for one panel, one setting has a panel for each of its values.
    """

    panel: str | None
    heading: str
    lines: dict[str, str]
    """Cell -> the name of its line."""
    colors: dict[str, Color]
    """Line -> colour, for the lines that the legend names."""
    most_seeds: int

    @property
    def note(self) -> str:
        """How to read the curves."""
        is_all = {*self.lines.values()} <= self.colors.keys()
        many = [] if is_all else [notes.MANY_LINES.format(most=MOST_LEGEND_ENTRIES)]
        return " ".join([notes.of_seeds(notes.METRICS_BY_EPOCH, self.most_seeds), *many])


def _layout(sweep: Sweep, epochs: pd.DataFrame) -> _Layout:
    cells = {sweep.cell_label(trial): trial.settings for trial in sweep.trials}
    panel = _panel(sweep, cells)
    rest = [path for path in sweep.varying if path != panel]
    lines = labeled(cells, rest) if panel else {cell: cell for cell in cells}
    if panel:
        short = figure_labels(lines.values())
        lines = {cell: short[line] for cell, line in lines.items()}
    heading = sweep.headings.get(panel, panel) if panel else ""
    colors = colors_of(_named(sweep, epochs, lines))
    return _Layout(panel, heading, lines, colors, sweep.most_seeds)


def _named(sweep: Sweep, epochs: pd.DataFrame, lines: Mapping[str, str]) -> list[str]:
    """The lines that a legend names: all, or those that end best by the headline metric.

    Metrics on different data do not compare, so a line counts by its best rank on a data set.
    """
    names = list(dict.fromkeys(lines.values()))
    if len(names) <= MOST_LEGEND_ENTRIES or sweep.headline not in epochs:
        return names
    ends = epochs.groupby([CELL, "seed"], as_index=False).last()
    on = ends[DATA_SET] if DATA_SET in sweep.varying else pd.Series("", ends.index)
    means = ends.groupby([on, ends[CELL].map(lines)])[sweep.headline].mean()
    ranks = means.groupby(level=0).rank(ascending=not sweep.higher_is_better, method="first")
    best = ranks.groupby(level=1).min().sort_values(kind="stable")
    return [name for name in names if name in best.index[:MOST_LEGEND_ENTRIES]]


def _panel(sweep: Sweep, cells: dict[str, dict[str, Any]]) -> str | None:
    """The data set, if there are several: metrics on different data do not compare.

    Otherwise the setting whose panels hold the fewest lines, if one panel would hold too many.
    """
    if DATA_SET in sweep.varying:
        return DATA_SET
    if len(cells) <= MOST_LINES:
        return None
    most: dict[str, int] = {}
    for path in sweep.varying:
        counts = Counter(str(settings.get(path)) for settings in cells.values())
        if 2 <= len(counts) <= MOST_LINES and str(None) not in counts:
            most[path] = max(counts.values())
    return min(most, key=most.__getitem__, default=None)
