"""Partial cells: which trials agree with one, and which paths it may name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from nodebench.errors import ELSEWHERE, Fault, unknown
from nodebench.spec import TrialSpec
from nodebench.spec.settings import field_paths, flatten
from nodebench.sweep.paths import NAMED_BY, is_within, set_path, value_at
from nodebench.sweep.safe_yaml import Tree

SPEC_ORDER = {path: i for i, path in enumerate(dict.fromkeys(field_paths(TrialSpec)))}
"""Every path that a trial may have -> its place in a spec."""


OPEN_MAPPINGS = tuple(path for path in SPEC_ORDER if path.rpartition(".")[2] == "settings")
"""Mappings whose keys are a user's own."""


def agrees(spec: TrialSpec, cell: Mapping[str, Any]) -> bool:
    """Whether a trial has a partial cell's values (path -> value): setting them changes nothing.

    Settings that do not belong to a trial, such as the solver of a network without an ODE, agree
    only with `null`, although setting them has no effect.
    """
    if not cell:
        return True
    tree = spec.model_dump(exclude_none=True)
    for path, value in leaves(cell):
        set_path(tree, path.split("."), value)
    try:
        is_same = TrialSpec.model_validate(tree) == spec
    except ValidationError:
        return False
    return is_same and all(
        value in (None, {}) or _belongs(spec, path) for path, value in leaves(cell)
    )


def unlike(tree: Tree, cell: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The paths at which a tree, as it is written, has other values than a partial cell.

    Each has the cell's value and the tree's, which is None if nothing is written there.
    """
    pairs = {path: (value, value_at(tree, path.split("."))) for path, value in leaves(cell)}
    return {path: (wanted, found) for path, (wanted, found) in pairs.items() if wanted != found}


def _belongs(spec: TrialSpec, path: str) -> bool:
    """Whether a trial has the setting or group of a path, or the setting is one that is off there.

    A setting that is off, such as `solver.dense_output: false`, is not among a trial's settings.
    Those of a model depend on its kind: what is not among them does not belong to it.
    """
    group = path if path.startswith("model.") else path.rpartition(".")[0] or path
    return any(is_within(known, group) or is_within(group, known) for known in flatten(spec))


def leaves(cell: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A cell's paths and values; groups are split up, and so are names that stand for groups."""
    for key, value in cell.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}.")
        else:
            yield _of_name(path) if isinstance(value, str) else path, value


def _of_name(path: str) -> str:
    """The path of a group's field that a bare name stands for; the path itself if it is a field."""
    field = f"{path}.{NAMED_BY.get(path.rpartition('.')[2], 'name')}"
    return field if field in SPEC_ORDER else path


FOR_KINDS = ("name", "method", "type", "kind", "class")
"""Words for the field that says of which kind a group is."""


def kind_meant(path: str) -> str | None:
    """The field that says of which kind a path's group is, if the path ends in another word."""
    group, _, word = path.rpartition(".")
    field = _of_name(group)
    return field if word in FOR_KINDS and field not in (group, path) else None


def named_paths(cell: Mapping[str, Any]) -> list[str]:
    """The settings that a partial cell names; a group given as a mapping stands for all of it."""
    plain = {key: value for key, value in cell.items() if not isinstance(value, dict)}
    return [*(key for key in cell if key not in plain), *(path for path, _ in leaves(plain))]


def misnamed(where: str, cell: Mapping[str, Any]) -> Iterator[Fault]:
    """The paths in a partial cell that no trial can have."""
    for path, _ in leaves(cell):
        if not is_known(path):
            what = unknown(path, "field", neighbors(path), kind_meant(path))
            yield Fault(f"{where}.{path}", what)


def is_known(path: str) -> bool:
    """Whether a trial may have this path: a field, or an entry of a part's own `settings`."""
    return path in SPEC_ORDER or any(path.startswith(f"{open_}.") for open_ in OPEN_MAPPINGS)


def ending_in(path: str) -> list[str]:
    """The paths that a trial may have and that end in this one: `train.epochs` for `epochs`."""
    end = ELSEWHERE.get(path, path)
    return [known for known in SPEC_ORDER if known.endswith(f".{end}")]


def neighbors(path: str) -> list[str]:
    """The paths that a trial may have and that an unknown path may have meant.

    These are the paths that end in it or, if there is none, those in its group, as far as the group
    is known.
    """
    if ending := ending_in(path):
        return ending
    group = path.rpartition(".")[0]
    while group and group not in SPEC_ORDER:
        group = group.rpartition(".")[0]
    near = [known for known in SPEC_ORDER if known.rpartition(".")[0] == group]
    return near or neighbors(group)
