"""Checks between the parts of a sweep file, once each part is valid by itself."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from typing import Any

from nodebench.errors import Fault, unknown
from nodebench.spec import Trial
from nodebench.spec.identity import canonical
from nodebench.sweep.file import Search, SweepFile
from nodebench.sweep.grid.combination import base_of
from nodebench.sweep.grid.expansion import Expansion
from nodebench.sweep.mismatches import mismatches
from nodebench.sweep.partial_cells import agrees, is_known, misnamed, neighbors
from nodebench.sweep.paths import axis_paths, is_within
from nodebench.sweep.safe_yaml import Tree
from nodebench.sweep.validation import Mistake, mistakes_in

VALIDATION = "set `data.val_size` above 0"


def inconsistencies(file: SweepFile, expansion: Expansion) -> Iterator[Fault]:
    """The mistakes in a sweep file's base, search, partial cells, claims and data sets.

    A mistake in `base` that combinations have too is among the faults of the expansion.
    """
    trials = expansion.trials
    told = {fault.where for fault in expansion.faults}
    yield from (fault for fault in _hidden_in_base(file) if fault.where not in told)
    if file.search:
        yield from _not_searchable(file.search, file.grid, trials)
    for where, cell in _partial_cells(file):
        yield from misnamed(where, cell)
    yield from _not_shares(file, trials)
    yield from _not_measured(file, trials)
    yield from _not_comparable(trials)


def conditions_without_effect(file: SweepFile, expansion: Expansion) -> Iterator[Fault]:
    """Faults for conditions that no trial meets, for example because of a misspelt value."""
    every = tuple({each.trial.id: each.trial for each in expansion.planned}.values())
    for number, entry in enumerate(file.exclude):
        if number not in expansion.excluding:
            yield from _unmet(f"exclude[{number}]", entry, every)
    trials = expansion.trials
    for where, cell in _partial_cells(file):
        if cell and not any(agrees(trial.spec, cell) for trial in trials):
            yield from _unmet(where, cell, trials)


def _unmet(where: str, cell: Mapping[str, Any], trials: Sequence[Trial]) -> Iterator[Fault]:
    for each in mismatches(trials, cell):
        yield Fault(where, f"matches no trial of this sweep: none has {each}")


def _not_searchable(
    search: Search, grid: Sequence[Tree], trials: Sequence[Trial]
) -> Iterator[Fault]:
    """Faults of a search. Tuning on the data that results are reported for would bias them."""
    if not all(map(_has_validation_data, trials)):
        yield Fault("search", f"needs validation data: {VALIDATION}")
    if search.stop and len({canonical(trial.settings["data.name"]) for trial in trials}) > 1:
        yield Fault("search.stop", "compares trials, so all trials need the same `data`")
    axes = {path for block in grid for key in block for path in axis_paths(str(key))}
    for path in search.space:
        if clash := [axis for axis in axes if is_within(axis, path) or is_within(path, axis)]:
            yield Fault(f"search.space.{path}", f"is also in the grid's axis `{clash[0]}`")
        if not is_known(path) or path == "seed":
            yield Fault(f"search.space.{path}", unknown(path, "field", neighbors(path)))


def _has_validation_data(trial: Trial) -> bool:
    return getattr(trial.spec.data, "val_size", 0) > 0


def _not_measured(file: SweepFile, trials: Sequence[Trial]) -> Iterator[Fault]:
    """Faults for claims about validation data that none of their trials has."""
    for number, claim in enumerate(file.claims):
        if claim.metric and claim.metric.startswith("val_"):
            of = [trial for trial in trials if agrees(trial.spec, claim.of)]
            if of and not any(map(_has_validation_data, of)):
                yield Fault(
                    f"claims[{number}]", f"`{claim.metric}` needs validation data: {VALIDATION}"
                )


def _not_shares(file: SweepFile, trials: Sequence[Trial]) -> Iterator[Fault]:
    """Faults for claims that give accuracies in percent, which would never hold."""
    headlines = {trial.spec.data.headline for trial in trials}
    for number, claim in enumerate(file.claims):
        metrics = {claim.metric} if claim.metric else headlines
        is_accuracy = all(metric.endswith("accuracy") for metric in metrics)
        if is_accuracy and not isinstance(claim.other, dict) and abs(claim.other) > 1:
            yield Fault(
                f"claims[{number}]",
                f"accuracies are shares of 1: {claim.other / 100:g} is {claim.other:g} %",
            )


def _not_comparable(trials: Sequence[Trial]) -> Iterator[Fault]:
    """A fault for data sets with different metrics, which cannot share a table."""
    metrics = {str(trial.spec.data.metric): trial.spec.data.name for trial in trials}
    if len(metrics) > 1:
        what = ", ".join(f"{name} by {metric}" for metric, name in metrics.items())
        yield Fault("base.data", f"the data sets have different metrics ({what}): make two sweeps")


def _hidden_in_base(file: SweepFile) -> Iterator[Fault]:
    """The mistakes in what an axis or a search replaces of `base`, so that no trial has them."""
    axes = {path for block in file.grid for key in block for path in axis_paths(str(key))}
    axes |= file.search.space.keys() if file.search else set()
    for mistake in mistakes_in(base_of(file)):
        if _is_replaced(mistake.where, axes) and not _may_be_meant(mistake, axes):
            yield Fault(f"base.{mistake.where}", mistake.message)


def _is_replaced(where: str, axes: Container[str]) -> bool:
    """Whether a path in `base`, or the name that it is shorthand for, is within one of the axes."""
    return any(path in axes for path in (*_groups_of(where), where, *_kinds_of(where)))


def _may_be_meant(mistake: Mistake, axes: Collection[str]) -> bool:
    """Whether the rest of a sweep may give sense to what is wrong in `base` alone.

    A setting may suit another kind of its group, such as a model, if kinds vary. Settings that do
    not go together may do so with those that the grid has in their group.
    """
    where = mistake.where
    if mistake.nature == "unknown":
        kinds = [kind for group in _groups_of(where) for kind in _kinds_of(group) if kind != where]
        return is_known(where) and any(kind in axes for kind in kinds)
    if mistake.nature == "clash":
        return any(axis != where and is_within(axis, where) for axis in axes)
    return mistake.nature == "incomplete"


def _groups_of(where: str) -> list[str]:
    parts = where.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def _kinds_of(group: str) -> tuple[str, ...]:
    return f"{group}.name", f"{group}.method"


def _partial_cells(file: SweepFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """The partial cells in a file, with their places; those of `exclude` are left out."""
    for number, block in enumerate(file.evaluate):
        yield f"evaluate[{number}].when", block.when
    yield "baseline", file.baseline
    for number, claim in enumerate(file.claims):
        for name, cell in claim.cells.items():
            yield f"claims[{number}].{name}", cell
