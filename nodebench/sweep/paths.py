"""Dotted paths: the axes of a grid, and setting a value in a tree."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from nodebench.spec.model import BY_PLACE
from nodebench.spec.network import PLACES
from nodebench.spec.solver import Solver
from nodebench.sweep.safe_yaml import DEEPEST, Tree

NAMED_BY = {"solver": Solver.named_by}
"""A group -> its field that a bare name stands for, if that is not `name`."""

TOO_DEEP = f"a path has at most {DEEPEST} parts"


def axis_paths(key: str) -> tuple[str, ...]:
    """The dotted paths of a grid key; paths that are separated by commas are zipped."""
    return tuple(path.strip() for path in key.split(","))


def is_too_deep(path: str) -> bool:
    """Whether a dotted path is deeper than any tree."""
    return path.count(".") >= DEEPEST


def is_within(path: str, group: str) -> bool:
    """Whether a dotted path is a group's, or lies inside it."""
    return f"{path}.".startswith(f"{group}.")


def set_path(tree: Tree, path: Sequence[str], value: Any) -> None:
    """Sets a value in a tree, and writes shorthand along the path in full."""
    for depth, key in enumerate(path[:-1]):
        tree[key] = written_out(tree.get(key), key, depth)
        tree = tree[key]
    tree[path[-1]] = copy.deepcopy(value)


def with_values(base: Tree, values: Mapping[str, Any]) -> Tree:
    """A copy of a tree with values, path -> value, whole groups before values inside them."""
    tree = copy.deepcopy(base)
    for path in sorted(values, key=lambda path: path.count(".")):
        set_path(tree, path.split("."), values[path])
    return tree


def value_at(tree: Tree, path: Sequence[str]) -> Any:
    """A value in a tree in which shorthand may stand for groups; None if there is none."""
    group = tree
    for depth, key in enumerate(path[:-1]):
        group = written_out(group.get(key), key, depth)
    return group.get(path[-1])


def written_out(group: Any, key: str, depth: int) -> Tree:
    """A group at a depth of a spec as a mapping; a name is replaced by what it is shorthand for."""
    if isinstance(group, str):
        is_by_place = depth == 1 and key in BY_PLACE
        return dict.fromkeys(PLACES, group) if is_by_place else {NAMED_BY.get(key, "name"): group}
    return group if isinstance(group, dict) else {}
