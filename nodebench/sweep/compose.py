"""Turns a sweep file into one tree: `include`, the size and overrides."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from nodebench.errors import Fault, shown, unknown
from nodebench.spec import TrialSpec
from nodebench.spec.settings import field_paths
from nodebench.sweep.file import SMALLER, SizeName, SweepFile
from nodebench.sweep.partial_cells import SPEC_ORDER, ending_in
from nodebench.sweep.paths import (
    TOO_DEEP,
    axis_paths,
    followed,
    is_too_deep,
    set_path,
    written_out,
)
from nodebench.sweep.safe_yaml import DEEPEST, MarkedFile, Tree, inline, parse, parse_file
from nodebench.sweep.yaml_mistakes import why_unreadable

BLOCKS = ("grid", "evaluate", "exclude")
"""Fields that take a list of blocks, or one block."""

FILE_ONLY = ("include", *SMALLER, "made")
"""Fields that cannot be overridden, since they are read from the file first."""


def read(path: Path, overrides: Sequence[str], size: SizeName, faults: list[Fault]) -> Tree:
    """The tree of a sweep file in a size, with `include` and the blocks of sizes resolved.

    Faults are appended to `faults`.

    Raises:
        SweepError: if the file cannot be read as a tree.
    """
    tree = parse_file(path)
    tree["base"] = _included(path, tree, faults)
    tree.pop("include", None)
    _resize(tree, size, faults)
    for text in overrides:
        _override_by_text(tree, text, faults)
    if overrides:
        _note(tree, "Run with", overrides)
        _record(tree, changed=list(overrides))
    for key in BLOCKS:
        if isinstance(tree.get(key), dict):
            tree[key] = [tree[key]]
    return tree


def with_lines(faults: Sequence[Fault], path: Path, tree: Tree, size: SizeName) -> list[Fault]:
    """The faults of a tree that was read from a file, with their lines there.

    A fault has no line if the file does not have the tree's value at its place: then the value
    comes from `--set` or from an included file.
    """
    if not path.is_file():  # a pipe cannot be read twice
        return list(faults)
    file = MarkedFile(path)
    tree = {name: file.tree[name] for name in FILE_ONLY if name in file.tree} | tree

    def line(where: str) -> int | None:
        _, value = followed(tree, where)
        setting = where.partition(".")[2]  # the block of a size names no `base` or `grid[0]`
        for place in (where, f"{size}.{where}", f"{size}.{setting}"):
            keys, found = followed(file.tree, place)
            if keys and found == value:
                return file.line(keys)
        return None

    lines = {where: line(where) for where in {fault.where for fault in faults}}
    return [replace(fault, line=lines[fault.where]) for fault in faults]


def _resize(tree: Tree, size: SizeName, faults: list[Fault]) -> None:
    """Changes the tree to one of the file's smaller sizes, by the block of that name."""
    known = _sizes(tree)
    blocks: dict[SizeName, Any] = {name: tree.pop(name, {}) for name in SMALLER}
    for name, block in blocks.items():
        if not isinstance(block, dict):
            faults.append(Fault(name, f"should be a mapping, path -> value, found {shown(block)}"))
    if size == "full" or not isinstance(blocks[size], dict):
        return
    changes: Tree = blocks[size]
    if not changes:
        sizes = ", ".join(f"`{name}`" for name in known)
        what = f"`--size {size}` needs a `{size}:` block, path -> value; the file has {sizes}"
        faults.append(Fault(size, what))
    if isinstance(tree.get("name"), str):
        tree["name"] += f"-{size}"
    for key, value in changes.items():
        _override(tree, key, value, f"{size}.", faults)
    _note(tree, f"{size.capitalize()} form", [_assignment(k, v) for k, v in changes.items()])
    _record(tree, size=size)


def sizes_of(path: Path) -> tuple[SizeName, ...]:
    """The sizes that a file has, the largest first.

    Raises:
        SweepError: if it is not a sweep file.
    """
    return _sizes(parse_file(path))


def _sizes(tree: Tree) -> tuple[SizeName, ...]:
    return ("full", *(name for name in reversed(SMALLER) if tree.get(name)))


def _record(tree: Tree, **made: Any) -> None:
    """Records in `made` how the sweep was made from its file, in addition to earlier records."""
    before = tree.get("made")
    if isinstance(before, dict):
        earlier = before.get("changed", [])
        if "changed" in made and isinstance(earlier, list):
            made["changed"] = [*earlier, *made["changed"]]
        made = before | made
    tree["made"] = made


def _note(tree: Tree, title: str, changes: Sequence[str]) -> None:
    """Notes in `about`, and so in the report, the changes made to the file."""
    about = tree.get("about", "")
    if isinstance(about, str):
        texts = ", ".join(f"`{text}`" for text in changes)
        tree["about"] = f"{about.strip()} {title}: {texts}.".strip()


def _assignment(key: object, value: object) -> str:
    """`path=value`; a long value, such as a whole grid, is left out: the sweep file has it."""
    text = inline(value)
    return f"{key}={text}" if len(text) <= 40 else f"{key}=…"


def _included(path: Path, tree: Tree, faults: list[Fault], above: tuple[Path, ...] = ()) -> Any:
    """The file's `base`, merged over that of the file that it includes."""
    base = tree.get("base", {})
    include = tree.get("include")
    if include is None or not isinstance(base, dict):
        return base
    other = path.parent / str(include)
    if not os.path.isfile(other):  # unlike Path.is_file, accepts texts that are not paths
        faults.append(Fault("include", f"{shown(include)} does not exist"))
        return base
    other, above = other.resolve(), (*above, path.resolve())
    if other in above or len(above) > DEEPEST:
        why = "includes itself" if other in above else f"more than {DEEPEST} nested includes"
        faults.append(Fault("include", f"{shown(include)}: {why}"))
        return base
    below = _included(other, parse_file(other), faults, above)
    return _merged(below, base) if isinstance(below, dict) else base


def _merged(below: Tree, above: Tree, depth: int = 0) -> Tree:
    """`above` merged over `below`; a group with another name or method replaces the one below."""
    if any(key in above and above[key] != below.get(key) for key in ("name", "method")):
        return above
    merged = below | above
    for key, value in above.items():
        if isinstance(value, dict) and key in below:
            merged[key] = _merged(written_out(below[key], key, depth), value, depth + 1)
    return merged


def _override_by_text(tree: Tree, text: str, faults: list[Fault]) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        path, colon, given = text.partition(":")
        meant = f": `{path}={given.strip()}`?" if colon and path in SPEC_ORDER else ""
        faults.append(Fault("--set", f"{shown(text)} should read `dotted.path=value`{meant}"))
        return
    if not value.strip():
        why = f"{shown(text)} has no value. To go back to the default, write `{key.strip()}=null`"
        faults.append(Fault("--set", why))
        return
    try:
        _override(tree, key.strip(), parse(value), "--set ", faults)
    except yaml.YAMLError as error:
        faults.append(Fault("--set", why_unreadable(error, text, value)))


def _override(tree: Tree, key: str, value: Any, origin: str, faults: list[Fault]) -> None:
    """Sets a field of the file or of `base`, and replaces the axis of that name.

    A list becomes the axis's values; any other value removes the axis and is set in `base`.
    """
    first = key.partition(".")[0]
    fields = (*TrialSpec.model_fields, *SweepFile.model_fields)
    settable = [name for name in fields if name not in FILE_ONLY]
    if first not in settable or is_too_deep(key):
        known = ending_in(key) or settable
        what = TOO_DEEP if first in settable else unknown(key, "field", known)
        faults.append(Fault(f"{origin}{key}", what))
        return
    if first in SweepFile.model_fields:
        set_path(tree, key.split("."), value)
        return
    replaced = False
    space = tree["search"].get("space") if isinstance(tree.get("search"), dict) else None
    if isinstance(space, dict):
        space.pop(key, None)  # it is no longer sampled
    for block in _blocks(tree):
        for axis in list(block):
            paths = axis_paths(axis)
            within = [path == key or path.startswith(f"{key}.") for path in paths]
            above = [key.startswith(f"{path}.") for path in paths]
            if paths == (key,) and isinstance(value, list):
                block[axis], replaced = value, True
            elif all(within):
                del block[axis]
            elif above == [True] and isinstance(block[axis], list):
                block[axis] = [_with(paths[0], group, key, value) for group in block[axis]]
            elif any(within) or any(above):
                message = f"is zipped with others in `{axis}`: give that axis"
                faults.append(Fault(f"{origin}{key}", message))
    if not replaced and isinstance(tree["base"], dict):
        set_path(tree["base"], key.split("."), value)


def _with(axis: str, group: Any, key: str, value: Any) -> Any:
    """A value of an axis over a whole group, with one field replaced."""
    tree: Tree = {}
    set_path(tree, axis.split("."), group)
    set_path(tree, key.split("."), value)
    for name in axis.split("."):
        tree = tree[name]
    return tree


def _blocks(tree: Tree) -> list[Tree]:
    grid = tree.get("grid", [])
    blocks = grid if isinstance(grid, list) else [grid]
    return [block for block in blocks if isinstance(block, dict)]


def meant_by(name: str) -> list[str]:
    """The paths that `--set` takes and that a name may mean: `train.epochs` for `epochs`."""
    fields = {*TrialSpec.model_fields, *SweepFile.model_fields, *SPEC_ORDER}
    if name == "seed":
        return ["seeds"]
    if name in fields.difference(FILE_ONLY):
        return [name]
    groups = ("resources.", "limits.")
    around = [path for path in field_paths(SweepFile) if path.startswith(groups)]
    return ending_in(name) or [path for path in around if path.endswith(f".{name}")]
