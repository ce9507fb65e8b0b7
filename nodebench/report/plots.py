"""Figures, as SVG and PNG: the same data gives the same bytes."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from nodebench.label import drawn, labelled
from nodebench.report.frontier import COSTS
from nodebench.report.statistics import interval
from nodebench.sweep import Sweep

CURVES = {
    "accuracy": ("test_accuracy", "test accuracy"),
    "error": ("test_error", "test error"),
    "loss": ("train_loss", "training loss"),
    "nfe_forward": ("nfe_forward", "evaluations per forward pass"),
    "nfe_backward": ("nfe_backward", "evaluations per backward pass"),
}
ON_LOG_AXES = ("test_error",)
FEW_EPOCHS = 5  # are marked one by one: a line through one is not seen
MOST_NAMED = 16  # cells in a legend; of more, only the best are named
LONGEST_FILE_NAME = 60
LONGEST_LINE = 28  # of a panel's title, in letters
MOST_LINES = 6  # with their bands, in one panel

sns.set_theme(context="paper", style="whitegrid", palette="colorblind", font_scale=1.1)
mpl.rcParams.update({"svg.hashsalt": "nodebench", "svg.fonttype": "path", "figure.dpi": 150})


def curves(sweep: Sweep, epochs: pd.DataFrame, folder: Path) -> dict[str, str]:
    """Draws every metric by epoch, a line a cell with a band over seeds; name -> caption."""
    captions: dict[str, str] = {}
    layout = _layout(sweep)
    for name, (column, title) in CURVES.items():
        if column not in epochs or not epochs[column].fillna(0).any():
            continue
        if column.startswith("nfe") and epochs.groupby("trial")[column].nunique().max() <= 1:
            continue  # a fixed-step solver's, which a table says better
        save(_curve(layout, epochs, column, title), folder / name)
        captions[name] = title[0].upper() + title[1:]
    return captions


def trajectories(paths: Mapping[str, pd.DataFrame], folder: Path) -> list[str]:
    """Draws learned trajectories over their observations, a panel a trial; returns the name.

    `paths` maps a trial's label to rows of `t` and the states `observed` and `learned`, of which
    the first two coordinates are drawn.
    """
    if not paths:
        return []
    columns = min(3, len(paths))
    rows = -(-len(paths) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(4.2 * columns + 0.8, 4 * rows), squeeze=False, layout="constrained"
    )
    for axes in grid.flat[len(paths) :]:
        axes.remove()
    for axes, (label, path) in zip(grid.flat, paths.items(), strict=False):
        x, y, *_ = zip(*path["observed"], strict=True)
        dots = axes.scatter(x, y, c=path["t"], cmap="viridis", s=14, label="observed")
        x, y, *_ = zip(*path["learned"], strict=True)
        axes.plot(x, y, color="black", linewidth=1, label="learned")
        axes.set(title=in_lines(label), xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure.colorbar(dots, ax=grid, label="time", shrink=0.8)
    save(figure, folder / "trajectories")
    return ["trajectories"]


def adaptation(sweep: Sweep, epochs: pd.DataFrame, folder: Path) -> list[str]:
    """Draws an adapted solver over training beside accuracy: Ott et al. 2021, Figure 5.

    A line a cell, with a band over seeds. Returns the figure's name, if any solver was adapted.
    """
    if "nfe_adaptation" not in epochs:
        return []
    data = epochs[epochs["nfe_adaptation"].notna()].copy()
    rows = {"train_accuracy": "accuracy on training batches", "nfe_forward": "evaluations"}
    if "tol" in data:
        rows = {"tol": "tolerance"} | rows
    if "step_size" in data:
        spans = {trial.id: trial.spec.model.span or 1.0 for trial in sweep.trials}
        data["steps"] = data["trial"].map(spans) / data["step_size"]
        rows = {"steps": "steps"} | rows
    figure, grid = plt.subplots(
        len(rows), 1, figsize=(7, 2.1 * len(rows) + 0.4), sharex=True, layout="constrained"
    )
    for axes, (column, title) in zip(grid, rows.items(), strict=True):
        sns.lineplot(
            data, x="iteration", y=column, hue="cell", errorbar=interval, linewidth=1, ax=axes,
            legend="auto" if axes is grid[0] else False,
        )  # fmt: skip
        axes.set(ylabel=title, yscale="log" if column == "tol" else "linear")
    grid[0].get_legend().set_title("")
    save(figure, folder / "adaptation")
    return ["adaptation"]


def frontier(sweep: Sweep, table: pd.DataFrame, folder: Path) -> list[str]:
    """Draws every cell by what it costs; those that none surpasses are ringed and joined.

    `table` is that of `frontier.frontier`. Returns the figure's name, if there are two cells.
    """
    panels = {cost: title for cost, title in COSTS.items() if table[cost].notna().sum() > 1}
    if len(table) < 2 or not panels:
        return []
    data = sweep.trials[0].spec.data
    figure, grid = plt.subplots(
        1, len(panels), figsize=(4.4 * len(panels) + 0.4, 3.6), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    colours = dict(zip(table["cell"], sns.color_palette("husl", len(table)), strict=True))
    for axes, (cost, title) in zip(grid[0], panels.items(), strict=True):
        known = table[table[cost].notna()]
        front = known[known[f"front_{cost}"]].sort_values(cost)
        axes.plot(front[cost], front["value"], color="0.4", drawstyle="steps-post", zorder=1)
        for row in known.to_dict("records"):
            colour, is_front = colours[row["cell"]], row[f"front_{cost}"]
            axes.errorbar(
                row[cost], row["value"], 0 if pd.isna(row["width"]) else row["width"], fmt="o",
                color=colour, markeredgecolor="black" if is_front else colour, capsize=2,
                label=row["cell"],
            )  # fmt: skip
        few = [row for row in front.to_dict("records") if len(table) > MOST_NAMED]
        for row in few:
            place = row[cost], row["value"]
            axes.annotate(row["cell"], place, (5, 5), textcoords="offset points", fontsize="small")
        is_shared = cost == "seconds" and front.empty
        axes.set(xlabel=f"{title}, as trained" if is_shared else title)
        if known[cost].max() > 10 * known[cost].min():
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_xlim(left=0)
    if len(table) <= MOST_NAMED:
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", frameon=False)
    grid[0][0].set_ylabel(f"test {data.metric}")
    if f"test_{data.metric}" in ON_LOG_AXES:
        grid[0][0].set_yscale("log")
    within_shares(grid[0][0], data.metric)
    save(figure, folder / "frontier")
    return ["frontier"]


def within_shares(axes: Axes, metric: str) -> None:
    """Ends an axis of accuracies at 0 and 1, which the intervals of few seeds go beyond."""
    if metric.endswith("accuracy"):
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -0.02), min(high, 1.02))


def in_lines(title: str) -> str:
    """A title over a panel, whose neighbour it must not reach."""
    return "\n".join(textwrap.wrap(title, LONGEST_LINE))


def file_names(values: Iterable[object]) -> dict[str, str]:
    """Value -> what stands for it in a file's name: some letters, digits, dots; no two alike."""
    names: dict[str, str] = {}
    for value in dict.fromkeys(map(str, values)):
        name = re.sub(r"[^A-Za-z0-9.]+", "-", value)[:LONGEST_FILE_NAME].strip("-.")
        is_taken = name.lower() in map(str.lower, names.values())  # as some file systems see it
        names[value] = f"{name}-{len(names)}" if is_taken or not name else name
    return names


def close() -> None:
    """Forgets figures that were begun."""
    plt.close("all")


def save(figure: Figure, path: Path) -> None:
    """Writes a figure beside each other as SVG and PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for ending, unwanted in (("svg", "Date"), ("png", "Software")):
        file = path.with_name(f"{path.name}.{ending}")
        figure.savefig(file, metadata={unwanted: None}, bbox_inches="tight")
    plt.close(figure)


def _curve(layout: _Layout, epochs: pd.DataFrame, column: str, title: str) -> Figure:
    data = epochs.dropna(subset=[column])
    data = data.assign(line=data["cell"].map(layout.lines))
    present = [line for line in layout.colours if (data["line"] == line).any()]
    grid = sns.relplot(
        data=data,
        x="epoch",
        y=column,
        hue="line",
        style="line",
        hue_order=present,
        style_order=present,
        palette=layout.colours,
        col=layout.panel,
        col_wrap=min(3, data[layout.panel].nunique()) if layout.panel else None,
        kind="line",
        markers=data["epoch"].nunique() <= FEW_EPOCHS,
        errorbar=interval if data["seed"].nunique() > 1 else None,
        err_kws={"alpha": 0.15, "linewidth": 0},
        height=3.4 if layout.panel else 3.8,
        aspect=1.2 if layout.panel else 1.6,
    )
    grid.set_axis_labels("epoch", title)
    for axes in grid.axes.flat:
        if column in ON_LOG_AXES:
            axes.set_yscale("log")
        within_shares(axes, column)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if layout.panel:
        grid.set_titles("{col_name}")
        for axes in grid.axes.flat:
            [title] = drawn([f"{layout.heading} = {axes.get_title()}"]).values()
            axes.set_title(in_lines(title))
    if grid.legend is not None:
        grid.legend.set_title("")
    figure: Figure = grid.figure
    return figure


@dataclass(frozen=True)
class _Layout:
    """How the cells of a sweep are told apart, alike in all its figures.

    Where they are too many for one panel, one setting has a panel for each of its values.
    """

    panel: str | None
    heading: str
    lines: dict[str, str]
    """Cell -> what its line is called."""
    colours: dict[str, tuple[float, float, float]]
    """Line -> colour."""


def _layout(sweep: Sweep) -> _Layout:
    cells = {sweep.cell_label(trial): trial.settings for trial in sweep.trials}
    panel = _panel(sweep, cells)
    rest = [path for path in sweep.varying if path != panel]
    lines = labelled(cells, rest) if panel else {cell: cell for cell in cells}
    if panel:
        short = drawn(lines.values())
        lines = {cell: short[line] for cell, line in lines.items()}
    names = list(dict.fromkeys(lines.values()))
    palette = sns.color_palette("colorblind" if len(names) <= 10 else "husl", len(names))
    heading = sweep.heading(panel) if panel else ""
    return _Layout(panel, heading, lines, dict(zip(names, palette, strict=True)))


def _panel(sweep: Sweep, cells: dict[str, dict[str, Any]]) -> str | None:
    """The setting whose panels hold the fewest lines, if one panel would hold too many."""
    if len(cells) <= MOST_LINES:
        return None
    most: dict[str, int] = {}
    for path in sweep.varying:
        counts = Counter(str(settings.get(path)) for settings in cells.values())
        if 2 <= len(counts) <= MOST_LINES and str(None) not in counts:
            most[path] = max(counts.values())
    return min(most, key=most.__getitem__, default=None)
