"""Dotted paths: the axes of a grid, and setting a value in a tree."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from itertools import islice
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


def followed(tree: Tree, place: str) -> tuple[tuple[str | int, ...], Any]:
    """The keys along a place such as `grid[0].model.norm.ode[2]`, and the value they lead to.

    They end where the tree has no more of the place: shorthand has no inner values.
    """
    keys: list[str | int] = []
    here: Any = tree
    while place and (step := _step(here, place)):
        key, place = step
        keys.append(key)
        here = here[key]
    return tuple(keys), here


def _step(tree: Any, place: str) -> tuple[str | int, str] | None:
    """The first key along a place, and the rest of the place; None if the tree lacks it."""
    if isinstance(tree, dict):
        place = place.removeprefix("[0]").removeprefix(".")  # one block is short for a list of it
        return _plain_key(tree, place) or _axis(tree, place)
    found = re.match(r"\[([0-9]{1,9})\]\.?", place)
    if isinstance(tree, list) and found and int(found[1]) < len(tree):
        return int(found[1]), place[found.end() :]
    return None


def _plain_key(tree: Tree, place: str) -> tuple[str, str] | None:
    """The longest key that a place begins with; a key may itself have dots, but not too many."""
    ends = [found.start() for found in islice(re.finditer(r"[.\[]", place), 2 * DEEPEST)]
    for end in (len(place), *reversed(ends)):
        if place[:end] in tree:
            return place[:end], place[end:].removeprefix(".")
    return None


def _axis(tree: Tree, place: str) -> tuple[str, str] | None:
    """The zipped axis that a place is in, or the only axis inside it."""
    within = []
    for key in tree:
        for path in axis_paths(key):
            if f"{place}.".startswith((f"{path}.", f"{path}[")):
                return key, place[len(path) :].removeprefix(".")
            if is_within(path, place):
                within.append(key)
    return (within[0], "") if len(within) == 1 else None


def written_out(group: Any, key: str, depth: int) -> Tree:
    """A group at a depth of a spec as a mapping; a name is replaced by what it is shorthand for."""
    if isinstance(group, str):
        is_by_place = depth == 1 and key in BY_PLACE
        return dict.fromkeys(PLACES, group) if is_by_place else {NAMED_BY.get(key, "name"): group}
    return group if isinstance(group, dict) else {}
