"""The figure of accuracy against cost, with its Pareto front."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from nodebench.report.analysis.columns import CELL
from nodebench.report.analysis.pareto import COST_TITLES
from nodebench.report.figures.curves import MOST_LEGEND_ENTRIES
from nodebench.report.figures.style import ON_LOG_AXES, colors_of, save, within_shares
from nodebench.sweep import Sweep


def pareto_figure(sweep: Sweep, table: pd.DataFrame, folder: Path) -> list[str]:
    """Draws every configuration over its cost; each data set's front is circled and connected.

    `table` is that of `pareto.pareto_table`. Returns the figure's name, if there are several cells.
    """
    panels = {cost: title for cost, title in COST_TITLES.items() if table[cost].notna().sum() > 1}
    if len(table) < 2 or not panels:
        return []
    figure, grid = plt.subplots(
        1, len(panels), figsize=(4.4 * len(panels) + 0.4, 3.6), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    colors = colors_of(table[CELL])
    for axes, (cost, title) in zip(grid[0], panels.items(), strict=True):
        known = table[table[cost].notna()]
        doubt = known["measured"].iloc[0] if cost == "seconds" else ""
        axes.set(xlabel=f"{title}, {doubt}" if doubt else title)
        _draw_points(axes, known, cost, colors, names_front=len(table) > MOST_LEGEND_ENTRIES)
    if len(table) <= MOST_LEGEND_ENTRIES:
        drawn = table.loc[table[list(panels)].notna().any(axis=1), CELL]
        dots = [
            Line2D([], [], color=colors[cell], marker="o", linestyle="", label=cell)
            for cell in drawn
        ]
        figure.legend(handles=dots, loc="outside right center", frameon=False)
    grid[0][0].set_ylabel(f"test {sweep.metric}")
    if f"test_{sweep.metric}" in ON_LOG_AXES:
        grid[0][0].set_yscale("log")
    within_shares(grid[0][0], sweep.metric)
    save(figure, folder / "frontier")
    return ["frontier"]


def _draw_points(
    axes: Axes, known: pd.DataFrame, cost: str, colors: Mapping[str, Any], *, names_front: bool
) -> None:
    """Draws each configuration by its cost, with its interval; the front has black edges."""
    is_front = known[f"front_{cost}"]
    front = known[is_front].sort_values(cost)
    for _, each in front.groupby("data"):
        axes.plot(each[cost], each["value"], color="0.4", drawstyle="steps-post", zorder=1)
    x, y, width = known[cost], known["value"], known["width"].fillna(0)
    own = [colors[cell] for cell in known[CELL]]
    edges = ["black" if front else color for front, color in zip(is_front, own, strict=True)]
    axes.vlines(x, y - width, y + width, own)
    axes.scatter(x, y, 36, own, edgecolors=edges, zorder=2)
    for row in front.to_dict("records") if names_front else ():
        place = row[cost], row["value"]
        axes.annotate(row[CELL], place, (5, 5), textcoords="offset points", fontsize="small")
    if x.max() > 10 * x.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, 1.05 * x.max())
