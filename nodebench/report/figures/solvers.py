"""Figures of trained models under other solvers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nodebench.report import notes
from nodebench.report.analysis.columns import BUDGET, CELL, METHOD
from nodebench.report.analysis.formatting import unit
from nodebench.report.analysis.frames import on_most_samples
from nodebench.report.analysis.statistics import interval_ends, possible_values
from nodebench.report.figures.curves import file_names
from nodebench.report.figures.style import Drawn, in_lines, in_percent, log_ticks, save
from nodebench.spec.vocabulary import METHODS
from nodebench.sweep import Sweep

MOST_PANELS, MOST_FIGURES = 48, 4  # panels in one figure, and figures
FEW_CELLS = 3  # in a figure of a few cells that represent all
SHORT_LABEL, INCHES_A_LETTER = 24, 0.08  # next to a heat map: longer labels widen it
MARKERS = "os^Dv"
LINES = ("-", "--", ":", "-.")
SIZES = {"markersize": 4, "linewidth": 1}


def robustness_figures(sweep: Sweep, curves: pd.DataFrame, folder: Path) -> list[Drawn]:
    """Draws the headline metric over evaluations, one panel per cell.

    `curves` is the table of `frames.robustness_curves`. If two settings distinguish the cells, the
    first gives the columns and the second the rows, as in Gusak et al. 2020, Figure 1. If there
    would be many figures, only some are drawn.
    """
    groups = robustness_groups(sweep, curves)
    names = evenly_spaced(list(groups), MOST_FIGURES)
    for name in names:
        save(_robustness(_panels(sweep, groups[name]), curves, sweep.metric), folder / name)
    some = notes.SOME_FIGURES.format(shown=len(names), every=len(groups))
    note = notes.of_seeds(notes.ROBUSTNESS_FIGURE, sweep.most_seeds) + (
        f" {some}" if len(names) < len(groups) else ""
    )
    return [Drawn(names, note)]


def robustness_groups(sweep: Sweep, curves: pd.DataFrame) -> dict[str, list[str]]:
    """A figure's name -> its cells: one figure for all, or one per value of the first setting."""
    cells = list(dict.fromkeys(curves[CELL]))
    if len(cells) <= MOST_PANELS:
        return {"robustness": cells}
    settings = {sweep.cell_label(trial): trial.settings for trial in sweep.trials}
    values = {cell: str(settings[cell].get(sweep.varying[0])) for cell in cells}
    names = file_names(values.values())
    groups: dict[str, list[str]] = {}
    for cell, value in values.items():
        groups.setdefault(f"robustness-{names[value]}", []).append(cell)
    return groups


def evenly_spaced(items: Sequence[str], most: int) -> list[str]:
    """At most `most` items, evenly spaced from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _panels(sweep: Sweep, cells: list[str]) -> list[list[str]]:
    """The cells in rows: by two settings if only these distinguish the cells, or four per row."""
    settings = {
        sweep.cell_label(trial): {p: str(trial.settings.get(p)) for p in sweep.varying}
        for trial in sweep.trials
    }
    values = {p: list(dict.fromkeys(settings[c][p] for c in cells)) for p in sweep.varying}
    several = [path for path in sweep.varying if len(values[path]) > 1]
    if len(several) == 2:
        across, down = (values[path] for path in several)
        places = {tuple(settings[c][p] for p in several): c for c in cells}
        if len(across) * len(down) == len(cells) == len(places):
            return [[places[x, y] for x in across] for y in down]
    return [cells[start : start + 4] for start in range(0, len(cells), 4)]


def _robustness(panels: list[list[str]], curves: pd.DataFrame, metric: str) -> Figure:
    rows, columns = len(panels), max(map(len, panels))
    figure, grid = plt.subplots(
        rows, columns, figsize=(2.6 * columns + 1.2, 2.2 * rows + 0.5),
        squeeze=False, sharex=True, sharey=True, layout="constrained",
    )  # fmt: skip
    looks = _looks(curves)
    for row, cells in enumerate(panels):
        below = len(panels[row + 1]) if row + 1 < rows else 0
        for axes in grid[row, below:]:
            axes.tick_params(labelbottom=True)
        for axes, cell in zip(grid[row], cells, strict=False):
            _robustness_panel(axes, curves[curves[CELL] == cell], metric, looks)
            axes.set_title(in_lines(cell), fontsize="medium")
        for axes in grid[row, len(cells) :]:
            axes.set_axis_off()
    figure.supxlabel("evaluations per forward pass")
    figure.supylabel(f"test {metric}{unit(metric)}")
    in_percent(grid[0, 0], metric)
    _legend(figure, grid.flat)
    return figure


def _looks(curves: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Test method -> colour, line and marker, the same in all figures of a report."""
    colors, markers = itertools.cycle(sns.color_palette("colorblind")), itertools.cycle(MARKERS)
    lines = itertools.cycle(LINES)
    methods = dict.fromkeys(curves["method"])
    return {
        method: {"color": next(colors), "marker": next(markers), "linestyle": next(lines), **SIZES}
        for method in sorted(methods, key=_rank)
    }


def _legend(figure: Figure, panels: Any) -> None:
    handles = {h.get_label(): h for axes in panels for h in axes.get_legend_handles_labels()[0]}
    names = sorted(handles, key=_rank)  # stable: labels that are not methods come first, in order
    figure.legend([handles[name] for name in names], names, loc="outside right upper")


def _rank(label: str) -> int:
    """A method's place in the vocabulary's order."""
    words = label.replace(",", "").split()
    return next((i for i, method in enumerate(METHODS) if method in words), -1)


def _robustness_panel(
    axes: Axes, curves: pd.DataFrame, metric: str, looks: Mapping[str, dict[str, Any]]
) -> None:
    for method, curve in curves.groupby("method", sort=False):
        points = curve.sort_values("nfe", kind="stable")
        value = points["value"]
        low, high = interval_ends(value, points["spread"], possible_values(metric))
        ends = (value - low, high - value)
        axes.errorbar(points["nfe"], value, ends, label=method, **looks[str(method)])
    axes.axvline(curves["trained_nfe"].iloc[0], color="0.4", linestyle="--", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda nfe, _: f"{nfe:g}")


def steps_figure(sweep: Sweep, curves: pd.DataFrame, folder: Path) -> list[Drawn]:
    """Draws the headline metric over the number of steps, one panel per training method.

    Every training step size has its own points, with a circle at the training solver, as in Ott et
    al. 2021, Figure 4. Drawn only if nothing but a fixed-step solver varies.
    """
    methods_of = {
        sweep.cell_label(t): t.spec.solver.method for t in sweep.trials if t.spec.solver is not None
    }
    curves = curves[(curves["batch_norm"] == "running") & curves["steps"].notna()]
    own = curves[curves["own"]].set_index(CELL)["steps"]
    varies_alone = all(path.startswith("solver.") for path in sweep.varying)
    if not varies_alone or own.nunique() < 2:
        return []
    curves = curves.assign(trained=curves[CELL].map(methods_of), own_steps=curves[CELL].map(own))
    methods = list(dict.fromkeys(curves["trained"]))
    figure, grid = plt.subplots(
        1, len(methods), figsize=(4.2 * len(methods) + 1.2, 3.6),
        squeeze=False, sharey=True, sharex=True, layout="constrained",
    )  # fmt: skip
    sizes = sorted(set(curves["own_steps"].dropna()))
    colors = dict(zip(sizes, sns.color_palette("viridis", len(sizes)), strict=True))
    looks = _looks(curves)
    for size, color in colors.items():
        grid[0, 0].plot([], color=color, linewidth=4, label=f"trained with {size:g}")
    for axes, method in zip(grid.flat, methods, strict=True):
        _steps_panel(axes, curves[curves["trained"] == method], colors, looks)
        axes.set_title(f"trained with {method}", fontsize="medium")
    figure.supxlabel("steps")
    figure.supylabel(f"test {sweep.metric}{unit(sweep.metric)}")
    in_percent(grid[0, 0], sweep.metric)
    _legend(figure, grid.flat)
    save(figure, folder / "steps")
    return [Drawn(["steps"], notes.STEPS_FIGURE)]


def _steps_panel(
    axes: Axes,
    curves: pd.DataFrame,
    colors: Mapping[float, Any],
    looks: Mapping[str, dict[str, Any]],
) -> None:
    for size, of_size in curves.groupby("own_steps"):
        color = colors[float(str(size))]
        for method, points in of_size.groupby("method", sort=False):
            look: dict[str, Any] = {**looks[str(method)], "color": color, "alpha": 0.8}
            ordered = points.sort_values("steps")
            axes.plot(ordered["steps"], ordered["value"], **look)
        own = of_size[of_size["own"]]
        axes.scatter(
            own["steps"], own["value"], s=70, facecolors="none", edgecolors="black", zorder=3
        )
    for method in dict.fromkeys(curves["method"]):
        look = {**looks[method], "color": "0.3"}
        axes.plot([], **look, label=f"tested with {method}")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda n, _: f"{n:g}")


def some_cells(cells: Sequence[str], judged: pd.DataFrame) -> list[str]:
    """A few cells that represent all: spaced by rank of their drops, the largest drop first."""
    drops: Mapping[Any, float] = {}
    if len(judged):
        known = judged.assign(drop=judged["drop"].astype(float))
        drops = known.groupby(CELL)["drop"].mean().dropna().to_dict()
    ordered = sorted(cells, key=lambda cell: drops.get(cell, -math.inf), reverse=True)
    return evenly_spaced(ordered, FEW_CELLS)


def some_cells_note(cells: Sequence[str]) -> str:
    """How many of the cells a figure of `some_cells` shows, and by which rule; empty if all."""
    if len(cells) <= FEW_CELLS:
        return ""
    return notes.SOME_CELLS.format(shown=FEW_CELLS, every=len(cells))


def cells_with_errors(curves: pd.DataFrame) -> list[str]:
    """The cells for which a solver's error was measured."""
    known = curves[curves["solver_error"] > 0] if "solver_error" in curves else curves[:0]
    return list(dict.fromkeys(known[CELL]))


def work_precision_figure(curves: pd.DataFrame, judged: pd.DataFrame, folder: Path) -> list[Drawn]:
    """Draws the error of solves over evaluations and over seconds, for a few cells, one per row."""
    every = cells_with_errors(curves)
    cells = some_cells(every, judged)
    if not cells:
        return []
    figure, grid = plt.subplots(
        len(cells), 2, figsize=(7.6, 2.5 * len(cells) + 0.5),
        squeeze=False, sharex="col", sharey=True, layout="constrained",
    )  # fmt: skip
    looks = _looks(curves)
    for row, cell in zip(grid, cells, strict=True):
        of_cell = curves[(curves[CELL] == cell) & (curves["solver_error"] > 0)]
        for axes, column in zip(row, ("nfe", "forward_s"), strict=True):
            for method, points in of_cell.groupby("method", sort=False):
                ordered = points.sort_values("nfe", kind="stable")
                look = looks[str(method)]
                axes.plot(ordered[column], ordered["solver_error"], label=method, **look)
            axes.set_yscale("log")
            log_ticks(axes, curves.loc[curves["solver_error"] > 0, column])
        row[0].set(ylabel="relative error", title=in_lines(cell))
    for axes, title in zip(grid[-1], ("evaluations", "seconds"), strict=True):
        axes.set_xlabel(f"{title} per forward pass")
    _legend(figure, grid.flat)
    save(figure, folder / "work-precision")
    return [Drawn(["work-precision"], f"{notes.WORK_PRECISION} {some_cells_note(every)}".strip())]


def heat_map_figure(sweep: Sweep, frame: pd.DataFrame, folder: Path) -> list[Drawn]:
    """Draws the headline metric of every cell (rows) under every test solver (columns)."""
    done = on_most_samples(frame[frame["batch_norm"] == "running"])
    found = set(zip(done[METHOD], done[BUDGET], strict=True))
    solvers = sorted(found, key=lambda solver: (list(METHODS).index(solver[0]), solver[1]))
    if not 2 <= done[CELL].nunique() <= MOST_PANELS or len(solvers) < 2:
        return []
    table = done.pivot_table("value", CELL, [METHOD, BUDGET], sort=False)[solvers]
    beyond = max(0, max(map(len, table.index)) - SHORT_LABEL) * INCHES_A_LETTER
    figure, axes = plt.subplots(
        figsize=(0.5 * len(solvers) + 3 + beyond, 0.3 * len(table) + 1.8), layout="constrained"
    )
    metric = sweep.metric
    percent = 100 if metric == "accuracy" else 1
    sns.heatmap(
        table * percent, cmap="cividis", ax=axes, linewidths=0.5, annot=True,
        fmt=".0f" if percent == 100 else ".2g", annot_kws={"size": 7},
        cbar_kws={"label": f"test {metric}{unit(metric)}"},
        xticklabels=[f"{method} {budget}" for method, budget in solvers],
        yticklabels=False,  # seaborn would try vertical labels first, which can be too long
    )  # fmt: skip
    axes.grid(visible=False)
    axes.set_yticks([row + 0.5 for row in range(len(table))], list(table.index))
    axes.tick_params(axis="x", rotation=90)
    axes.set(xlabel="test solver", ylabel="configuration")
    save(figure, folder / "heat-map")
    return [Drawn(["heat-map"], notes.HEAT_MAP)]
