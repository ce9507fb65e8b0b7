"""The faults of combinations that give no cell, each at the place that causes it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from nodebench.errors import Fault, shortened
from nodebench.spec import TrialSpec
from nodebench.sweep.file import SweepFile
from nodebench.sweep.grid.combination import Misfit, base_of
from nodebench.sweep.partial_cells import agrees, unlike
from nodebench.sweep.paths import is_within, with_values
from nodebench.sweep.safe_yaml import Tree, inline
from nodebench.sweep.validation import Mistake, mistakes_in, spec_or_mistakes

Exclude = Sequence[Mapping[str, Any]]


def excluding(misfit: Misfit, exclude: Exclude) -> list[int]:
    """The numbers of the entries of `exclude` that leave a misfit out.

    A misfit has no spec, so an entry must have the values as they are written.
    """
    if not misfit.may_be_excluded:
        return []
    return [n for n, entry in enumerate(exclude) if entry and not unlike(misfit.tree, entry)]


def faults_of_misfits(misfits: Iterable[Misfit], file: SweepFile) -> Iterator[Fault]:
    """The faults of a file's combinations. A mistake in `base` is told once.

    Models differ in what they know, and so in what their combinations say of one mistake there.
    """
    base = base_of(file)
    in_base = {(mistake.where, mistake.message) for mistake in mistakes_in(base)}
    told: set[str] = set()
    for misfit in misfits:
        for mistake in misfit.mistakes:
            fault = _fault(mistake, misfit, base, in_base, file.exclude)
            if fault.where not in told:
                yield fault
            if is_within(fault.where, "base"):
                told.add(fault.where)


def _fault(
    mistake: Mistake,
    misfit: Misfit,
    base: Tree,
    in_base: Container[tuple[str, str]],
    exclude: Exclude,
) -> Fault:
    where, what = mistake.where, mistake.message
    if (where, what) in in_base:
        axes = list[str]()
    elif where:
        axes = [path for path in misfit.values if is_within(where, path) or is_within(path, where)]
    else:
        axes, where = list(misfit.values), _cause(what, misfit, base)
    if where in SweepFile.model_fields:
        what = f"`{where}` belongs next to `base` and `grid`, not inside them"
    elif axes and not mistake.is_lasting:
        what += _near_entry(misfit, base, exclude) or (_CURE if len(axes) > 1 else "")
    elif len(axes) == 1 and _is_of_value(mistake, axes[0]):
        where = misfit.entry(axes[0]) + where.removeprefix(axes[0])
    return Fault(f"{misfit.block if axes else 'base'}.{where}".removesuffix("."), what)


def _is_of_value(mistake: Mistake, axis: str) -> bool:
    """Whether a mistake is in a value of an axis, and not in the axis's own path."""
    is_path = mistake.nature == "unknown" and mistake.where == axis
    return is_within(mistake.where, axis) and not is_path


_CURE = ". To leave such combinations out, list them in `exclude`"


def _near_entry(misfit: Misfit, base: Tree, exclude: Exclude) -> str:
    """The entry of `exclude` that was meant to leave a misfit out, and why it does not.

    It names an axis. What it names and the misfit does not have as written is a seed or a default.
    """
    for number, entry in enumerate(exclude):
        lacking = unlike(misfit.tree, entry)
        wanted = {path: here for path, (here, there) in lacking.items() if there is None}
        if not wanted or wanted.keys() != lacking.keys() or not _names_an_axis(entry, misfit):
            continue
        if "seed" in wanted:
            why = "it names a `seed`, and no seed makes it valid. Remove `seed` there"
        elif all(_is_default(path, here, misfit, base) for path, here in wanted.items()):
            settings = shortened([f"{path}: {inline(value)}" for path, value in wanted.items()])
            why = f"an invalid combination has no defaults. Write {settings} in `base` or `grid`"
        else:
            continue
        return f". `exclude[{number}]` does not leave this out, because {why}"
    return ""


def _names_an_axis(entry: Mapping[str, Any], misfit: Misfit) -> bool:
    return any(is_within(a, b) or is_within(b, a) for a in entry for b in misfit.values)


def _is_default(path: str, value: Any, misfit: Misfit, base: Tree) -> bool:
    """Whether a setting has this value without being written, in `base` with its group's axes."""
    group = path.partition(".")[0]
    axes = {axis: found for axis, found in misfit.values.items() if is_within(axis, group)}
    spec = spec_or_mistakes(with_values(base, axes))
    return isinstance(spec, TrialSpec) and agrees(spec, {path: value})


def _cause(message: str, misfit: Misfit, base: Tree) -> str:
    """The axis without which a misfit is a trial, or has another mistake of the whole.

    Empty if there are several such axes, or none.
    """
    found = []
    for axis in misfit.values:
        others = {path: value for path, value in misfit.values.items() if path != axis}
        tree = with_values(base, others)
        mistakes = mistakes_in(tree)
        whole = [each.message for each in mistakes if not each.path]
        if message not in whole and (whole or not mistakes):
            found.append(axis)
    return found[0] if len(found) == 1 else ""
