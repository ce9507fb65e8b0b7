"""The figures of a report; one that cannot be drawn becomes a problem and affects no other."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import pandas as pd

from nodebench.report import notes
from nodebench.report.analysis import frames
from nodebench.report.analysis.findings import Findings
from nodebench.report.analysis.gradients import memory_by_steps
from nodebench.report.figures import curves as curves_module
from nodebench.report.figures import gradients, pareto, solvers, style
from nodebench.store import Store

FigureNames = TypeVar("FigureNames", list[str], dict[str, tuple[str, str]])


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
    """The figures in a folder, by what they show and known by their names; why others failed.

    Some are given with a text that says how to read them.
    """

    folder: Path
    frontier: tuple[list[str], str]
    trajectories: list[str]
    paths: tuple[list[str], str]
    under_other_solvers: list[tuple[list[str], str]]
    curves: dict[str, tuple[str, str]]
    """Name -> caption, and how to read it."""

    adaptation: list[str]
    gradients: list[tuple[list[str], str]]
    memory_by_steps: list[str]
    problems: list[str]

    @property
    def names(self) -> list[str]:
        """The names of all figures."""
        with_text = self.frontier, self.paths, *self.under_other_solvers, *self.gradients
        explained = (names for names, _ in with_text)
        plain = self.trajectories, self.adaptation, self.memory_by_steps
        return [*chain(*plain, *explained), *self.curves]

    def remove_others(self, shown: Iterable[str]) -> None:
        """Removes figures that a page showed and that are not drawn now; others are the user's."""
        for name in {*shown} - {*self.names}:
            style.discard(self.folder / name)
        with contextlib.suppress(OSError):  # the folder is missing or not empty
            self.folder.rmdir()


def draw_all(found: Findings, store: Store, folder: Path) -> Figures:
    """Draws every figure that the findings have data for."""
    style.configure()
    pen = _Pen(found.drawn(), store, folder)
    return Figures(
        folder=folder,
        frontier=pen.frontier(),
        trajectories=pen.trajectories(),
        paths=pen.paths(),
        under_other_solvers=list(pen.under_other_solvers()),
        curves=pen.curves(),
        adaptation=pen.adaptation(),
        gradients=list(pen.gradients()),
        memory_by_steps=pen.memory_by_steps(),
        problems=pen.problems,
    )


class _Pen:
    """Draws figures into a folder; `problems` says why some could not be drawn."""

    def __init__(self, found: Findings, store: Store, folder: Path):
        self.found, self.store, self.folder = found, store, folder
        self.sweep = found.sweep
        self.problems: list[str] = []

    def frontier(self) -> tuple[list[str], str]:
        """Cells by their costs; returns names, as do the methods below, and how to read it."""
        sweep, table, folder = self.sweep, self.found.frontier, self.folder
        names = self._drawn("frontier", [], lambda: pareto.pareto_figure(sweep, table, folder))
        return names, pareto.pareto_note(table)

    def trajectories(self) -> list[str]:
        """Learned trajectories over their observations."""
        paths = frames.trajectories(self.sweep, self.store)
        return self._drawn(
            "trajectories", [], lambda: curves_module.trajectories_figure(paths, self.folder)
        )

    def paths(self) -> tuple[list[str], str]:
        """Classified states in the plane, and how to read them."""
        paths = frames.classified_paths(self.sweep, self.store)
        names = self._drawn(
            "paths", [], lambda: solvers.paths_figure(paths, self.found.judged, self.folder)
        )
        return names, f"{notes.PATHS_FIGURE} {solvers.some_cells_note(list(paths))}".strip()

    def under_other_solvers(self) -> Iterator[tuple[list[str], str]]:
        """The figures of evaluation points, and how to read them."""
        sweep, folder = self.sweep, self.folder
        evaluated, judged = self.found.evaluated, self.found.judged
        curves = evaluated if evaluated.empty else frames.robustness_curves(evaluated)
        if curves.empty:
            return
        some = solvers.some_cells_note(solvers.cells_with_errors(curves))
        yield self._robustness(curves)
        for name, draw, text in (
            ("steps", lambda: solvers.steps_figure(sweep, curves, folder), notes.STEPS_FIGURE),
            ("heat map", lambda: solvers.heat_map_figure(sweep, evaluated, folder), notes.HEAT_MAP),
            (
                "work and precision",
                lambda: solvers.work_precision_figure(curves, judged, folder),
                f"{notes.WORK_PRECISION} {some}".strip(),
            ),
        ):
            yield self._drawn(name, [], draw), text

    def _robustness(self, curves: pd.DataFrame) -> tuple[list[str], str]:
        """The metric over evaluations; if there are many figures, only some of them."""
        names = self._drawn(
            "robustness", [], lambda: solvers.robustness_figures(self.sweep, curves, self.folder)
        )
        shown = len(names)
        every = len(solvers.robustness_groups(self.sweep, curves)) if names else 0
        some = [notes.SOME_FIGURES.format(shown=shown, every=every)] if shown < every else []
        return names, " ".join([notes.ROBUSTNESS_FIGURE, *some])

    def curves(self) -> dict[str, tuple[str, str]]:
        """Metrics by epoch: name -> caption, and how to read it."""
        epochs = self.found.epochs
        if epochs.empty:
            return {}
        return self._drawn(
            "curves", {}, lambda: curves_module.epoch_figures(self.sweep, epochs, self.folder)
        )

    def adaptation(self) -> list[str]:
        """Adapted solvers over training."""
        epochs = self.found.epochs
        return self._drawn(
            "adaptation",
            [],
            lambda: curves_module.adaptation_figure(self.sweep, epochs, self.folder),
        )

    def gradients(self) -> Iterator[tuple[list[str], str]]:
        """The costs and the errors of gradients."""
        costs, folder = self.found.costs, self.folder
        if costs.empty:
            return
        by_cost = self._drawn("gradient costs", [], lambda: gradients.costs_figure(costs, folder))
        yield by_cost, notes.GRADIENT_COSTS
        errors = self._drawn("gradient errors", [], lambda: gradients.errors_figure(costs, folder))
        yield errors, notes.GRADIENT_ERRORS

    def memory_by_steps(self) -> list[str]:
        """How a gradient's memory grows."""
        grown = memory_by_steps(self.sweep, self.found.results)
        return self._drawn("memory", [], lambda: gradients.memory_figure(grown, self.folder))

    def _drawn(
        self, what: str, nothing: FigureNames, draw: Callable[[], FigureNames]
    ) -> FigureNames:
        with left_out(what, self.problems):
            return draw()
        curves_module.close()
        return nothing
