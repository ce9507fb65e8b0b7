"""The figures of a report; one that cannot be drawn becomes a problem and affects no other."""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from nodebench.report.analysis import frames
from nodebench.report.analysis.columns import CELL
from nodebench.report.analysis.findings import Findings
from nodebench.report.analysis.gradients import memory_by_steps
from nodebench.report.figures import (
    curves,
    gradients,
    pareto,
    processes,
    solvers,
    style,
    trajectories,
)
from nodebench.report.figures.style import Drawn
from nodebench.store import Store
from nodebench.sweep import Sweep


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
    problems: list[str]
    frontier: list[Drawn] = field(default_factory=list)
    trajectories: list[Drawn] = field(default_factory=list)
    paths: list[Drawn] = field(default_factory=list)
    under_other_solvers: list[Drawn] = field(default_factory=list)
    curves: list[Drawn] = field(default_factory=list)
    adaptation: list[Drawn] = field(default_factory=list)
    gradients: list[Drawn] = field(default_factory=list)
    memory_by_steps: list[Drawn] = field(default_factory=list)

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


class _Task(NamedTuple):
    """Figures to draw: their field in `Figures`, what a problem calls them, and what draws them."""

    shows: str
    what: str
    draw: Callable[[], list[Drawn]]

    def __call__(self) -> tuple[list[Drawn], list[str]]:
        """The figures, and the problem if they could not be drawn."""
        problems: list[str] = []
        style.configure()
        with left_out(self.what, problems):
            return self.draw(), problems
        style.close()
        return [], problems


def draw_all(found: Findings, store: Store, folder: Path) -> Figures:
    """Draws every figure that the findings have data for."""
    tasks = _tasks(found, store, folder)
    problems, figures = list[str](), defaultdict[str, list[Drawn]](list)
    for task, (drawn, problem) in zip(tasks, processes.share(tasks), strict=True):
        figures[task.shows] += drawn
        problems += problem
    return Figures(folder, problems, **figures)


def _tasks(found: Findings, store: Store, folder: Path) -> list[_Task]:
    """All figures of a report; those that take longest come first."""
    sweep = found.sweep.drawn
    short = dict(zip(found.sweep.labels.values(), sweep.labels.values(), strict=True))
    epochs, evaluated, judged, frontier = (
        _relabeled(frame, short)
        for frame in (found.epochs, found.evaluated, found.judged, found.frontier)
    )
    paths, learned = frames.classified_paths(sweep, store), frames.trajectories(sweep, store)
    memory, costs = memory_by_steps(sweep, found.results), found.costs
    return [
        _Task("curves", "curves", partial(curves.epoch_figures, sweep, epochs, folder)),
        *_under_other_solvers(sweep, evaluated, judged, folder),
        _Task("frontier", "frontier", partial(pareto.pareto_figure, sweep, frontier, folder)),
        _Task(
            "trajectories",
            "trajectories",
            partial(trajectories.trajectories_figure, learned, folder),
        ),
        _Task("paths", "paths", partial(trajectories.paths_figure, paths, judged, folder)),
        _Task("adaptation", "adaptation", partial(curves.adaptation_figure, sweep, epochs, folder)),
        _Task("gradients", "gradient costs", partial(gradients.costs_figure, costs, folder)),
        _Task("gradients", "gradient errors", partial(gradients.errors_figure, costs, folder)),
        _Task("memory_by_steps", "memory", partial(gradients.memory_figure, memory, folder)),
    ]


def _under_other_solvers(
    sweep: Sweep, evaluated: pd.DataFrame, judged: pd.DataFrame, folder: Path
) -> list[_Task]:
    means = evaluated if evaluated.empty else frames.robustness_curves(evaluated)
    if means.empty:
        return []
    draws = {
        "robustness": partial(solvers.robustness_figures, sweep, means, folder),
        "steps": partial(solvers.steps_figure, sweep, means, folder),
        "heat map": partial(solvers.heat_map_figure, sweep, evaluated, folder),
        "work and precision": partial(solvers.work_precision_figure, means, judged, folder),
    }
    return [_Task("under_other_solvers", what, draw) for what, draw in draws.items()]


def _relabeled(frame: pd.DataFrame, short: Mapping[str, str]) -> pd.DataFrame:
    """A table of cells with the labels that fit into figures."""
    return frame.assign(**{CELL: frame[CELL].map(short)}) if CELL in frame else frame
