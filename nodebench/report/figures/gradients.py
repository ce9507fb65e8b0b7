"""Figures of the costs and errors of gradients, and of how their memory grows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from nodebench.report import notes
from nodebench.report.figures.style import Drawn, colors_of, in_lines, log_ticks, save

MOST_PROBLEMS = 4
"""The most rows of panels; for more problems, the figure of errors by problem shows more."""

SOLVER_MARKERS = "osD^vP*X<>"
LEAST_ERROR, MOST_ERROR = 1e-9, 1e3
"""Errors beyond these are drawn at the edge."""

PANELS = {"memory": ("MB at the peak", 1e-6), "seconds": ("ms, forward and backward", 1e3)}


def costs_figure(costs: pd.DataFrame, folder: Path) -> list[Drawn]:
    """Draws the error of each gradient over memory and seconds.

    `costs` is the table of `gradients.gradient_costs`. Each gradient has a colour, each solver a
    marker. A black edge marks the Pareto front of error, memory and seconds.
    """
    known = costs[costs["error"].notna()] if len(costs) else costs
    problems = list(dict.fromkeys(known["problem"])) if len(known) else []
    if not 0 < len(problems) <= MOST_PROBLEMS or known["way"].nunique() < 2:
        return []
    figure, grid = plt.subplots(
        len(problems), 2, figsize=(9.6, 3.3 * len(problems) + 0.3), squeeze=False, sharey="row",
        layout="constrained",
    )  # fmt: skip
    known = known.assign(solver=_solvers(known))
    colors, markers = colors_of(known["way"]), _markers(known["solver"])
    for row, problem in zip(grid, problems, strict=True):
        part = known[known["problem"] == problem]
        for axes, (cost, (title, unit)) in zip(row, PANELS.items(), strict=True):
            for point in part.to_dict("records"):
                edge = "black" if point["is_front"] else "none"
                axes.scatter(
                    point[cost] * unit, _within(point["error"]), s=48, linewidth=1.3, zorder=3,
                    color=colors[point["way"]], marker=markers[point["solver"]], edgecolor=edge,
                )  # fmt: skip
            axes.set(yscale="log", xlabel=title, title=in_lines(problem))
            log_ticks(axes, part[cost] * unit)
        row[0].set_ylabel("relative error of dL/dθ")
    _legend(figure, colors, markers)
    save(figure, folder / "gradient-costs")
    return [Drawn(["gradient-costs"], notes.GRADIENT_COSTS)]


def errors_figure(costs: pd.DataFrame, folder: Path) -> list[Drawn]:
    """Draws the errors of dL/dθ and dL/dy(0) by problem, one row per budget.

    A cross at the upper edge is a solve that failed.
    """
    problems = list(dict.fromkeys(costs["problem"])) if len(costs) else []
    if len(problems) < 2:
        return []
    costs = costs.assign(solver=costs["budget"])
    solvers = list(dict.fromkeys(costs["solver"]))
    figure, grid = plt.subplots(
        len(solvers), 2, figsize=(11, 2.5 * len(solvers) + 0.8), squeeze=False, sharex=True,
        sharey=True, layout="constrained",
    )  # fmt: skip
    colors = colors_of(costs["way"])
    for row, solver in zip(grid, solvers, strict=True):
        part = costs[costs["solver"] == solver]
        for axes, column, title in zip(
            row, ("error", "state_error"), ("dL/dθ", "dL/dy(0)"), strict=True
        ):
            _dots(axes, part, column, problems, colors)
            axes.set_title(f"{title}, {solver}")
        row[0].set_ylabel("relative error")
    for axes in grid[-1]:
        axes.set_xticks(range(len(problems)), problems, rotation=35, ha="right")
    _legend(figure, colors, {})
    save(figure, folder / "gradient-errors")
    return [Drawn(["gradient-errors"], notes.GRADIENT_ERRORS)]


def _dots(
    axes: Axes, part: pd.DataFrame, column: str, problems: list[str], colors: dict[str, Any]
) -> None:
    shown = list(dict.fromkeys(part["way"]))
    for place, way in enumerate(shown):
        rows = part[part["way"] == way]
        offset = 0.7 * ((place + 0.5) / len(shown) - 0.5)
        for point in rows.to_dict("records"):
            has_failed = bool(point["failed"])
            error = MOST_ERROR if has_failed else _within(point[column])
            axes.plot(
                problems.index(point["problem"]) + offset, error, "x" if has_failed else "o",
                color=colors[way], markersize=5,
            )  # fmt: skip
    for edge in range(1, len(problems)):
        axes.axvline(edge - 0.5, color="0.85", linewidth=0.8)
    axes.grid(visible=False, axis="x")
    axes.set(yscale="log", ylim=(LEAST_ERROR / 2, MOST_ERROR * 4))


def memory_figure(results: pd.DataFrame, folder: Path) -> list[Drawn]:
    """Draws a gradient's bytes over the number of steps.

    `results` has a row per trial with `way`, `steps`, `memory` and `power`.
    """
    if results.empty:
        return []
    figure, axes = plt.subplots(figsize=(7.6, 4.2), layout="constrained")
    colors = colors_of(results["way"])
    for number, (way, rows) in enumerate(results.groupby("way", sort=False)):
        rows = rows.sort_values("steps")
        marker = SOLVER_MARKERS[number % len(SOLVER_MARKERS)]
        axes.plot(
            rows["steps"], rows["memory"] / 1e6, marker=marker,
            color=colors[str(way)], label=f"{way}: {rows['power'].iloc[0]:.2f}", linewidth=1.2,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="MB at the peak")
    axes.set_xticks(
        sorted(set(results["steps"])), [f"{n:g}" for n in sorted(set(results["steps"]))]
    )
    axes.minorticks_off()
    figure.legend(loc="outside right center", frameon=False, title="gradient: power")
    save(figure, folder / "gradient-memory")
    return [Drawn(["gradient-memory"])]


def _within(error: float) -> float:
    return min(max(error, LEAST_ERROR), MOST_ERROR) if error == error else float("nan")


def _solvers(costs: pd.DataFrame) -> list[str]:
    """The name of each row's solver: its method, its budget, and what else distinguishes it."""
    parts = costs[["test.method", "budget", "solve"]].itertuples(index=False, name=None)
    return [" ".join(filter(None, each)) for each in parts]


def _markers(solvers: Iterable[str]) -> dict[str, str]:
    return {
        name: SOLVER_MARKERS[i % len(SOLVER_MARKERS)]
        for i, name in enumerate(dict.fromkeys(solvers))
    }


def _legend(figure: Any, colors: dict[str, Any], markers: dict[str, str]) -> None:
    handles = [Line2D([], [], ls="", marker="o", color=c, label=name) for name, c in colors.items()]
    handles += [
        Line2D([], [], ls="", marker=m, color="0.4", label=name) for name, m in markers.items()
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False)
