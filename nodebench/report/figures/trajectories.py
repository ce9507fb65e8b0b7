"""Figures of trajectories: learned ones over observations, and test samples in the plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from nodebench.report import notes
from nodebench.report.figures.solvers import some_cells, some_cells_note
from nodebench.report.figures.style import Drawn, in_lines, save

LARGE_STATE = 20.0
"""Axes are logarithmic only if some states reach beyond this."""


def trajectories_figure(paths: Mapping[str, pd.DataFrame], folder: Path) -> list[Drawn]:
    """Draws learned trajectories over observations, one panel per trial.

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
    dots = list[PathCollection]()
    for axes, (label, path) in zip(grid.flat, paths.items(), strict=False):
        dots.append(_draw_trajectory(axes, path))
        axes.set(title=in_lines(label), xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure.colorbar(dots[-1], ax=grid, label="time", shrink=0.8)
    save(figure, folder / "trajectories")
    return [Drawn(["trajectories"], notes.TRAJECTORIES)]


def _draw_trajectory(axes: Axes, path: pd.DataFrame) -> PathCollection:
    """Draws the observed states and, on top, the learned ones; returns the observed dots."""
    x, y, *_ = zip(*path["observed"], strict=True)
    dots = axes.scatter(x, y, c=path["t"], cmap="viridis", s=14, label="observed")
    x, y, *_ = zip(*path["learned"], strict=True)
    axes.plot(x, y, color="black", linewidth=1, label="learned")
    return dots


def paths_figure(
    found: Mapping[str, pd.DataFrame], judged: pd.DataFrame, folder: Path
) -> list[Drawn]:
    """Draws how states move in the plane under the training solver and at the limit.

    A few cells have one row each, and each class has a colour. A path leads from a dot to a cross.
    Source: Ott et al. 2021, Figure 1.
    """
    cells = some_cells(list(found), judged)
    if not cells:
        return []
    figure, grid = plt.subplots(
        len(cells), 2, figsize=(8, 3.6 * len(cells)),
        squeeze=False, sharex="row", sharey="row", layout="constrained",
    )  # fmt: skip
    for row, cell in zip(grid, cells, strict=True):
        paths = found[cell]
        for axes, under in zip(row, ("own", "limit"), strict=True):
            _draw_paths(axes, paths[paths["under"] == under])
            name = "training solver" if under == "own" else "limit"
            axes.set_title(f"{in_lines(cell)}\n{name}", fontsize="medium")
        _scale_axes(row[0], [state for states in paths["states"] for state in states])
    save(figure, folder / "paths")
    return [Drawn(["paths"], f"{notes.PATHS_FIGURE} {some_cells_note(list(found))}".strip())]


def _draw_paths(axes: Axes, paths: pd.DataFrame) -> None:
    """Draws a line for each sample, in the colour of its class."""
    palette = sns.color_palette("colorblind")
    for label, states in zip(paths["class"], paths["states"], strict=True):
        x, y = zip(*states, strict=True)
        color = palette[int(label) % len(palette)]
        axes.plot(x, y, color=color, linewidth=1, marker=".", markersize=2)
        axes.plot(x[0], y[0], color=color, marker="o", markersize=4)
        axes.plot(x[-1], y[-1], color=color, marker="x", markersize=6)


def _scale_axes(axes: Axes, states: Sequence[Sequence[float]]) -> None:
    """If some states are large, makes those axes logarithmic that lead from below 1 to beyond."""
    x, y = ([abs(value) for value in values] for values in zip(*states, strict=True))
    if max(*x, *y) <= LARGE_STATE:
        return
    if min(x) < 1 < max(x):
        axes.set_xscale("symlog", linthresh=1)
    if min(y) < 1 < max(y):
        axes.set_yscale("symlog", linthresh=1)
