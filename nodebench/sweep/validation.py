"""pydantic's errors in the user's terms: YAML path, the value found, the values allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from nodebench.errors import MOST_LISTED, Fault, counted, shown, similar, unknown
from nodebench.spec import TrialSpec
from nodebench.spec.model import BY_PLACE
from nodebench.spec.settings import Settings, parts_in
from nodebench.sweep.file import WRITTEN_FIELD, SweepFile
from nodebench.sweep.partial_cells import ending_in, is_known, leaves
from nodebench.sweep.paths import with_values
from nodebench.sweep.safe_yaml import Tree

TreePath = tuple[str | int, ...]


def faults_of(
    error: ValidationError, owner: type[Settings], tree: object
) -> list[tuple[TreePath, str]]:
    """(path into the tree, message) for every error in `tree`, which is not a valid `owner`."""
    return _told(error.errors(include_url=False), owner, tree)


def lasting_faults_of(
    error: ValidationError, owner: type[Settings], tree: object
) -> list[tuple[TreePath, str]]:
    """The same, without errors that vanish if other settings are added to `tree` or replaced."""
    details = error.errors(include_url=False)
    return _told([each for each in details if _is_lasting(each, owner)], owner, tree)


def spec_or_error(tree: Tree) -> TrialSpec | ValidationError:
    """The spec that a tree gives, or why it gives none."""
    try:
        return TrialSpec.model_validate(tree)
    except ValidationError as error:
        return error


def faults_of_entry(where: str, entry: Mapping[str, Any]) -> Iterator[Fault]:
    """The values in a partial cell that no trial can have."""
    known = {path: value for path, value in leaves(entry) if is_known(path) and value is not None}
    tree = with_values({}, known)
    error = spec_or_error(tree)
    if isinstance(error, ValidationError):
        for path, message in lasting_faults_of(error, TrialSpec, tree):
            yield Fault(f"{where}.{dotted(path)}", message)


def faults_of_combination(
    error: ValidationError, base: Tree, values: Mapping[str, Any], block: str
) -> Iterator[Fault]:
    """The faults of `base` with the values of a block's axes, each at the place that causes it."""
    tree = with_values(base, values)
    lasting = lasting_faults_of(error, TrialSpec, tree)
    for path, message in faults_of(error, TrialSpec, tree):
        text = dotted(path)
        if text in SweepFile.model_fields:
            message = f"`{text}` belongs next to `base` and `grid`, not inside them"
        involved = [p for p in values if f"{text}.".startswith(f"{p}.") or p.startswith(f"{text}.")]
        if not path and message not in _faults_of_whole(base):
            involved = list(values)
            causes = _causes(message, base, values)
            text = causes[0] if len(causes) == 1 else ""
        if len(involved) > 1 and (path, message) not in lasting:
            message = f"{message}. To leave such combinations out, list them in `exclude`"
        yield Fault(f"{block if involved else 'base'}.{text}".removesuffix("."), message)


def _causes(message: str, base: Tree, values: Mapping[str, Any]) -> list[str]:
    """The axes without which the trial is valid, or has another fault of the whole."""
    found = []
    for axis in values:
        tree = with_values(base, {path: v for path, v in values.items() if path != axis})
        others = _faults_of_whole(tree)
        if message not in others and (others or isinstance(spec_or_error(tree), TrialSpec)):
            found.append(axis)
    return found


def _faults_of_whole(tree: Tree) -> list[str]:
    """The faults of a tree that concern no single part of it."""
    found = spec_or_error(tree)
    if isinstance(found, TrialSpec):
        return []
    return [message for path, message in faults_of(found, TrialSpec, tree) if not path]


def _is_lasting(detail: ErrorDetails, owner: type[Settings]) -> bool:
    kind, value = detail["type"], detail["input"]
    if kind == "value_error":  # of a single value, or of a group whose settings do not fit
        path, part = _follow(owner, detail["loc"])
        field = part.model_fields.get(str(path[-1])) if part and path else None
        return field is not None and not parts_in(field)
    is_without_name = kind == "unknown_part" and isinstance(value, dict) and "name" not in value
    return kind != "missing" and not is_without_name


def _told(
    details: Iterable[ErrorDetails], owner: type[Settings], tree: object
) -> list[tuple[TreePath, str]]:
    found: list[tuple[TreePath, str]] = []
    for detail in details:
        path, part = _follow(owner, detail["loc"])
        path = _inside(tree, path)
        found.append((path, _message(detail, path, part)))
    return list(dict.fromkeys(found))


def dotted(path: TreePath) -> str:
    """`("grid", 0, "solver.steps")` as `grid[0].solver.steps`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".")


def _message(detail: ErrorDetails, path: TreePath, owner: type[Settings] | None) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        fields = owner.model_fields if owner else ()
        return _unknown_field(path[-1], [name for name in fields if name != WRITTEN_FIELD])
    if kind == "literal_error":
        field = next(key for key in reversed(path) if isinstance(key, str))
        if len(path) > 1 and path[-2] in BY_PLACE:
            field = str(path[-2])
        kind = f"value of `{field}`" if isinstance(path[-1], int) else field
        return unknown(value, kind, re.findall(r"'([^']*)'", context["expected"]))
    if kind == "unknown_part":
        name = value.get("name") if isinstance(value, dict) else value
        if name is None:
            return f"needs a `name`. Known: {context['known']}."
        return unknown(name, detail["msg"], context["known"].split(", "))
    if kind == "missing":
        return "is missing and has no default"
    if kind == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    if kind == "int_parsing_size":
        return f"should fit in 64 bits, found {shown(value)}"
    if kind in ("model_type", "model_attributes_type"):
        return f"should be a mapping of fields, or `null` for none, found {shown(value)}"
    if kind == "bool_type":
        return f"should be `true` or `false`, found {shown(value)}"
    if kind == "tuple_type":
        cure = ""
        if path == ("seeds",) and type(value) is int and 0 < value <= MOST_LISTED:
            cure = f": write `{list(range(value))}` for {counted(value, 'seed')}"
        return f"should be a list, found {shown(value)}{cure}"
    if kind == "string_type" and isinstance(value, int | float):
        return f"should be text, found the number {shown(value)}: write it in quotes"
    if kind == "string_pattern_mismatch":  # only import paths have a pattern
        return f"{shown(value)} is not an import path, `package.module:Name`"
    message = re.sub("^(Input|String|Tuple) should", "should", detail["msg"])
    return f"{message}, found {shown(value)}"


def _unknown_field(name: str | int, fields: Sequence[str]) -> str:
    """That a group has no such field; one that only another group has is suggested."""
    elsewhere = ending_in(str(name))
    if len(elsewhere) == 1 and not similar(name, fields):
        return f"{shown(name)} is not a field here. Did you mean `{elsewhere[0]}`?"
    return unknown(name, "field", fields)


def _follow(owner: type[Settings], loc: TreePath) -> tuple[TreePath, type[Settings] | None]:
    """The path without pydantic's union tags, and the part whose field is its last key."""
    path: list[str | int] = []
    here: type[Settings] | None = owner
    last = owner
    choices: dict[str, type[Settings]] = {}
    for key in loc:
        if str(key) in choices and len(choices) > 1:
            here = choices[str(key)]
            choices = {}
            continue
        path.append(key)
        if here is not None:
            last = here
            field = here.model_fields.get(str(key))
            choices = parts_in(field) if field else {}
            here = next(iter(choices.values())) if len(choices) == 1 else None
        elif isinstance(key, int) and len(choices) == 1:
            here = next(iter(choices.values()))
    return tuple(path), last


def _inside(tree: object, path: TreePath) -> TreePath:
    """The path up to the last value that the tree contains: shorthand has no inner values."""
    for depth, key in enumerate(path):
        if isinstance(tree, dict):
            tree = tree.get(key)
        elif isinstance(tree, (list, tuple)) and isinstance(key, int) and key < len(tree):
            tree = tree[key]
        else:
            return path[:depth]
    return path
