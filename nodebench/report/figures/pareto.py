"""The figure of accuracy against cost, with its Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from nodebench.report import notes
from nodebench.report.analysis.columns import CELL
from nodebench.report.analysis.formatting import unit
from nodebench.report.analysis.pareto import COST_TITLES
from nodebench.report.figures.curves import MOST_LEGEND_ENTRIES
from nodebench.report.figures.style import (
    ON_LOG_AXES,
    Color,
    Drawn,
    colors_of,
    in_lines,
    in_percent,
    log_ticks,
    save,
)
from nodebench.sweep import Sweep

GREY: Color = (0.7, 0.7, 0.7)
"""The colour of a configuration that the legend does not name."""

PAD_INCHES = 0.12
"""The space above and below panels, so that a title belongs to the panel below it."""


def pareto_figure(sweep: Sweep, table: pd.DataFrame, folder: Path) -> list[Drawn]:
    """Draws every configuration over its cost; each data set's front is circled and connected.

    `table` is that of `pareto.pareto_table`. A data set with several cells has a row of panels.
    Nothing is drawn if there is no such data set.
    """
    table = _not_alone(table)
    costs = [cost for cost in COST_TITLES if table[cost].notna().sum() > 1]
    if not costs:
        return []
    data_sets = dict(iter(table.groupby("data", sort=False)))
    figure, grid = plt.subplots(
        len(data_sets), len(costs), figsize=(4.4 * len(costs) + 0.4, 3.6 * len(data_sets)),
        sharey="row", squeeze=False, layout=ConstrainedLayoutEngine(h_pad=PAD_INCHES),
    )  # fmt: skip
    colors = colors_of(_named(table, costs))
    for row, (name, cells) in zip(grid, data_sets.items(), strict=True):
        for axes, cost in zip(row, costs, strict=True):
            _draw_panel(axes, cells, cost, colors)
            axes.set_title(in_lines(str(name)) if len(data_sets) > 1 else "")
        row[0].set(
            ylabel=f"test {sweep.metric}{unit(sweep.metric)}",
            yscale="log" if f"test_{sweep.metric}" in ON_LOG_AXES else "linear",
        )
        in_percent(row[0], sweep.metric)
    dots = [
        Line2D([], [], color=color, marker="o", linestyle="", label=cell)
        for cell, color in colors.items()
    ]
    if dots:
        figure.legend(handles=dots, loc="outside right center", frameon=False)
    save(figure, folder / "frontier")
    return [Drawn(["frontier"], pareto_note(table, sweep.most_seeds))]


def _named(table: pd.DataFrame, costs: Sequence[str]) -> list[str]:
    """The configurations that the legend names: all that are drawn or, of many, the fronts."""
    drawn = table[table[costs].notna().any(axis=1)]
    if len(drawn) > MOST_LEGEND_ENTRIES:
        is_front = drawn[[f"front_{cost}" for cost in costs]].any(axis=1)
        drawn = drawn[is_front].head(MOST_LEGEND_ENTRIES)
    return list(drawn[CELL])


def pareto_note(table: pd.DataFrame, most_seeds: int) -> str:
    """How to read the figure."""
    parts = [notes.of_seeds(notes.FRONTIER, most_seeds)]
    if len(table) > MOST_LEGEND_ENTRIES:
        parts.append(notes.MANY_POINTS.format(most=MOST_LEGEND_ENTRIES))
    if _not_alone(table)["data"].nunique() > 1:
        parts.append(notes.FRONTIERS)
    if table["nfe"].isna().any() and table["nfe"].notna().any():
        parts.append(notes.WITHOUT_EVALUATIONS)
    parts += [
        text for measured, text in notes.NO_FRONT.items() if measured in set(table["measured"])
    ]
    return " ".join(parts)


def _not_alone(table: pd.DataFrame) -> pd.DataFrame:
    """The cells on data sets that have several."""
    return table[table.groupby("data")[CELL].transform("size") > 1]


def _draw_panel(axes: Axes, cells: pd.DataFrame, cost: str, colors: Mapping[str, Color]) -> None:
    """Draws the configurations of a data set whose cost is known."""
    known = cells[cells[cost].notna()]
    if known.empty:  # networks without an ODE have no evaluations
        axes.set_axis_off()
        return
    doubt = known["measured"].iloc[0] if cost == "seconds" else ""
    title = COST_TITLES[cost]
    axes.set_xlabel(f"{title}, {doubt}" if doubt else title)
    _draw_points(axes, known, cost, colors)


def _draw_points(axes: Axes, known: pd.DataFrame, cost: str, colors: Mapping[str, Color]) -> None:
    """Draws each configuration by its cost, with its interval; the front has black edges."""
    is_front = known[f"front_{cost}"]
    front = known[is_front].sort_values(cost)
    if len(front):
        axes.plot(front[cost], front["value"], color="0.4", drawstyle="steps-post", zorder=1)
    x, y = known[cost], known["value"]
    own = [colors.get(cell, GREY) for cell in known[CELL]]
    edges = ["black" if front else color for front, color in zip(is_front, own, strict=True)]
    axes.vlines(x, known["low"], known["high"], own)
    axes.scatter(x, y, 36, own, edgecolors=edges, zorder=2)
    if x.max() > 10 * x.min():
        log_ticks(axes, x)
    else:
        axes.set_xlim(0, 1.05 * x.max())
        axes.locator_params(axis="x", integer=cost == "nfe")
