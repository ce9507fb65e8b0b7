"""Warnings that a plan gives about a sweep that it accepts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nodebench.errors import StoreError, counted, shortened
from nodebench.planning.diff import Difference, differences
from nodebench.spec import Trial
from nodebench.spec.identity import Cell
from nodebench.spec.own_code import file_hash
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import RESOLUTIONS
from nodebench.store import TrialFolder
from nodebench.sweep import Sweep
from nodebench.sweep.file import Evaluate
from nodebench.sweep.partial_cells import agrees
from nodebench.sweep.points import unusable


def doubts(sweep: Sweep) -> list[str]:
    """A line for each part of a sweep that has no effect, or may not have the intended one."""
    return [
        *_repeated(sweep),
        *_too_fine(sweep),
        *_unusable(sweep),
        *_without_weights(sweep),
        *_trained_otherwise(sweep),
        *_without_contrast(sweep),
    ]


def _repeated(sweep: Sweep) -> Iterator[str]:
    """Combinations of the grid that equal others, a line for each reason why they do."""
    idle: dict[str, dict[str, None]] = {}
    counts: Counter[str] = Counter()
    for repeat in sweep.repeats:
        has_ode = repeat.trial.spec.solver is not None
        where = sweep.cell_label(repeat.trial) if has_ode else repeat.trial.spec.model.name
        if repeat.idle:
            counts[where] += 1
            idle.setdefault(where, {}).update(dict.fromkeys(repeat.idle))
    places: dict[tuple[str, ...], list[str]] = {}
    for where, paths in idle.items():
        places.setdefault(tuple(paths), []).append(where)
    for paths, where in places.items():
        have = "has" if len(paths) == 1 else "have"
        why = f"{shortened(paths)} {have} no effect for {shortened(where)}"
        yield f"{_left_out(sum(counts[each] for each in where))}: {why}"
    if others := len(sweep.repeats) - counts.total():
        yield _left_out(others)


def _left_out(count: int) -> str:
    equal = "equals another and is" if count == 1 else "equal others and are"
    return f"{counted(count, 'combination')} of the grid {equal} left out"


NEEDS = {
    "nfe": "multiples of its stages times the ODE blocks (`steps` takes any number)",
    "step_factors": "a training with fixed steps, and a step within the interval",
    "tol_factors": "a training with a tolerance",
}
"""A list of evaluation budgets -> what a method needs to use them."""


def _unusable(sweep: Sweep) -> Iterator[str]:
    """Evaluation budgets that a method cannot use in any configuration."""
    for each in unusable(sweep):
        values = shortened(f"{value:g}" for value in each.values)
        yield (
            f"`evaluate[{each.block}].{each.budget}`: `{each.method}` skips {values}: it needs "
            f"{NEEDS[each.budget]}"
        )


def _without_weights(sweep: Sweep) -> list[str]:
    paths = dict.fromkeys(t.spec.weights for t in sweep.trials if t.spec.weights is not None)
    return [
        f"`weights: {path}` does not exist in `{Path.cwd()}`: these trials cannot run without it, "
        "and their ids will change with it"
        for path in paths
        if file_hash(path) is None
    ]


def _trained_otherwise(sweep: Sweep) -> Iterator[str]:
    """Checkpoints evaluated with settings other than those they were trained with."""
    evaluated: dict[str, list[Trial]] = {}
    for trial in {trial.cell: trial for trial in sweep.trials}.values():
        if trial.spec.weights is not None and trial.spec.train.iterations == 0:
            evaluated.setdefault(trial.spec.weights, []).append(trial)
    for path, trials in evaluated.items():
        try:
            trained = _network(TrialFolder(Path(path).parent).trial())
        except StoreError:  # no trial's checkpoint, so what it was trained as is not known
            continue
        apart = [differences(_network(trial), trained) for trial in trials]
        if different := [found for found in apart if found]:
            yield _otherwise_text(sweep, path, different, len(trials))


def _without_contrast(sweep: Sweep) -> list[str]:
    """A baseline that every configuration has."""
    if sweep.baseline and all(agrees(trial.spec, sweep.baseline) for trial in sweep.trials):
        return ["`baseline` matches every configuration, so the report compares none with it"]
    return []


def _network(trial: Trial) -> dict[str, Any]:
    """The settings of a trial that determine what its weights compute."""
    return {
        path: value
        for path, value in trial.settings.items()
        if path.startswith(("model.", "solver.")) or path == "data.name"
    }


def _otherwise_text(
    sweep: Sweep, path: str, different: Sequence[Sequence[Difference]], count: int
) -> str:
    every = {each.path: each.there for found in different for each in found}
    there = {name: every[name] for name in sorted(every, key=lambda n: n not in sweep.varying)}
    known = [f"{name}: {value}" for name, value in there.items() if value is not None]
    known += [f"no {name}" for name, value in there.items() if value is None]
    verb, whose = ("differs", "its") if len(different) == 1 else ("differ", "their")
    text = (
        f"`{path}` was trained with {shortened(known)}. {len(different)} of "
        f"{counted(count, 'configuration')} {verb} in this, so {whose} results and verdicts are "
        "not those of the trained network"
    )
    is_all = len(different) == count
    return f"{text}; {'set this with `--set`' if is_all else '`--only` leaves them out'}"


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
