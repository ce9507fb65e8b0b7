"""The figures of a report; one that cannot be drawn becomes a problem and affects no other."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec

import pandas as pd

from nodebench.report.analysis import frames
from nodebench.report.analysis.columns import CELL
from nodebench.report.analysis.findings import Findings
from nodebench.report.analysis.gradients import memory_by_steps
from nodebench.report.figures import curves, gradients, pareto, solvers, style
from nodebench.report.figures.style import Drawn
from nodebench.store import Store
from nodebench.sweep import Sweep

P = ParamSpec("P")


@contextlib.contextmanager
def left_out(what: str, problems: list[str]) -> Generator[None]:
    """Leaves a figure or chart out of a report if it fails: no figure is worth a report.

    The error is added to the problems, and its traceback is logged: a report is no place for it,
    since it contains this machine's paths.
    """
    try:
        yield
    except Exception as error:  # libraries raise anything for unexpected data
        problems.append(f"{what}: {type(error).__name__}: {error}")
        logging.getLogger(__name__).warning("a figure failed: %s", what, exc_info=True)


@dataclass(frozen=True)
class Figures:
    """The figures in a folder, by what they show; why others failed."""

    folder: Path
    frontier: list[Drawn]
    trajectories: list[Drawn]
    paths: list[Drawn]
    under_other_solvers: list[Drawn]
    curves: list[Drawn]
    adaptation: list[Drawn]
    gradients: list[Drawn]
    memory_by_steps: list[Drawn]
    problems: list[str]

    @property
    def names(self) -> list[str]:
        """The names of all figures."""
        every = [
            *(*self.frontier, *self.trajectories, *self.paths, *self.under_other_solvers),
            *(*self.curves, *self.adaptation, *self.gradients, *self.memory_by_steps),
        ]
        return [name for drawn in every for name in drawn.names]

    def remove_others(self, shown: Iterable[str]) -> None:
        """Removes figures that a page showed and that are not drawn now; others are the user's."""
        for name in {*shown} - {*self.names}:
            style.discard(self.folder / name)
        with contextlib.suppress(OSError):  # the folder is missing or not empty
            self.folder.rmdir()


def draw_all(found: Findings, store: Store, folder: Path) -> Figures:
    """Draws every figure that the findings have data for."""
    style.configure()
    sweep, pen = found.sweep.drawn, _Pen()
    short = dict(zip(found.sweep.labels.values(), sweep.labels.values(), strict=True))
    epochs, evaluated, judged, frontier = (
        _relabeled(frame, short)
        for frame in (found.epochs, found.evaluated, found.judged, found.frontier)
    )
    return Figures(
        folder=folder,
        frontier=pen.draw("frontier", pareto.pareto_figure, sweep, frontier, folder),
        trajectories=pen.draw(
            "trajectories", curves.trajectories_figure, frames.trajectories(sweep, store), folder
        ),
        paths=pen.draw(
            "paths", solvers.paths_figure, frames.classified_paths(sweep, store), judged, folder
        ),
        under_other_solvers=_under_other_solvers(pen, sweep, evaluated, judged, folder),
        curves=pen.draw("curves", curves.epoch_figures, sweep, epochs, folder),
        adaptation=pen.draw("adaptation", curves.adaptation_figure, sweep, epochs, folder),
        gradients=[
            *pen.draw("gradient costs", gradients.costs_figure, found.costs, folder),
            *pen.draw("gradient errors", gradients.errors_figure, found.costs, folder),
        ],
        memory_by_steps=pen.draw(
            "memory", gradients.memory_figure, memory_by_steps(sweep, found.results), folder
        ),
        problems=pen.problems,
    )


def _relabeled(frame: pd.DataFrame, short: Mapping[str, str]) -> pd.DataFrame:
    """A table of cells with the labels that fit into figures."""
    return frame.assign(**{CELL: frame[CELL].map(short)}) if CELL in frame else frame


def _under_other_solvers(
    pen: _Pen, sweep: Sweep, evaluated: pd.DataFrame, judged: pd.DataFrame, folder: Path
) -> list[Drawn]:
    means = evaluated if evaluated.empty else frames.robustness_curves(evaluated)
    if means.empty:
        return []
    return [
        *pen.draw("robustness", solvers.robustness_figures, sweep, means, folder),
        *pen.draw("steps", solvers.steps_figure, sweep, means, folder),
        *pen.draw("heat map", solvers.heat_map_figure, sweep, evaluated, folder),
        *pen.draw("work and precision", solvers.work_precision_figure, means, judged, folder),
    ]


class _Pen:
    """Calls the functions that draw; `problems` says why some figures could not be drawn."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def draw(
        self, what: str, figures: Callable[P, list[Drawn]], *args: P.args, **kwargs: P.kwargs
    ) -> list[Drawn]:
        """What a function draws; nothing if it fails."""
        with left_out(what, self.problems):
            return figures(*args, **kwargs)
        style.close()
        return []
