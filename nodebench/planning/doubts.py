"""Warnings that a plan gives about a sweep that it accepts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from nodebench.spec.identity import Cell
from nodebench.spec.own_code import file_hash
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import RESOLUTIONS
from nodebench.sweep import Sweep
from nodebench.sweep.file import Evaluate


def doubts(sweep: Sweep) -> list[str]:
    """One line per tolerance that gains nothing, and per weights file that does not exist yet."""
    return [*_too_fine(sweep), *_without_weights(sweep)]


def _without_weights(sweep: Sweep) -> list[str]:
    paths = dict.fromkeys(t.spec.weights for t in sweep.trials if t.spec.weights is not None)
    return [
        f"`weights: {path}` does not exist in `{Path.cwd()}`: these trials cannot run without it, "
        "and their ids will change with it"
        for path in paths
        if file_hash(path) is None
    ]


def _too_fine(sweep: Sweep) -> list[str]:
    """Tolerances below the resolution of their trial's precision."""
    found: dict[tuple[str, float, str], None] = {}
    for cell in dict.fromkeys(trial.cell for trial in sweep.trials):
        precision = cell.spec.train.precision
        for path, tolerance in _tolerances(cell, sweep.evaluate):
            if tolerance < RESOLUTIONS[precision]:
                found[path, tolerance, precision] = None
    return [
        f"`{path}: {tolerance:g}` is below the resolution of {precision}, "
        f"{RESOLUTIONS[precision]:g}: it costs evaluations, up to `limits.nfe`, and gains nothing"
        for path, tolerance, precision in found
    ]


def _tolerances(cell: Cell, blocks: Sequence[Evaluate]) -> Iterator[tuple[str, float]]:
    """The paths and the values of the relative tolerances of a cell's solves."""
    gradient = cell.spec.gradient
    solvers = {"solver": cell.spec.solver, "gradient.solver": gradient.solver if gradient else None}
    for path, solver in solvers.items():
        if (rtol := _rtol(solver)) is not None:
            yield f"{path}.{'tol' if solver and solver.tol else 'rtol'}", rtol
    trained = _rtol(cell.spec.solver)
    for number, block in enumerate(blocks):
        yield from ((f"evaluate[{number}].tols", tolerance) for tolerance in block.tols)
        if trained is not None:
            for factor in block.tol_factors:
                yield f"evaluate[{number}].tol_factors: {factor:g}, so tol", factor * trained


def _rtol(solver: Solver | None) -> float | None:
    return None if solver is None or solver.facts.kind == "fixed" else solver.tolerances[0]
