"""pydantic's errors in the user's terms: YAML path, the value found, the values allowed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from nodebench.errors import MOST_LISTED, Fault, counted, shown, similar, unknown
from nodebench.spec import TrialSpec
from nodebench.spec.model import BY_PLACE
from nodebench.spec.settings import Incomplete, NamedSettings, Settings, parts_in
from nodebench.sweep.file import WRITTEN_FIELD
from nodebench.sweep.partial_cells import FOR_KINDS, ending_in, is_known, kind_meant, leaves
from nodebench.sweep.paths import with_values
from nodebench.sweep.safe_yaml import Tree

TreePath = tuple[str | int, ...]

Nature = Literal["unknown", "value", "clash", "incomplete"]
"""An unknown field, an invalid value, settings that do not go together, or a missing setting."""


class Mistake(NamedTuple):
    """What is wrong at a path of a tree."""

    path: TreePath
    message: str
    nature: Nature

    @property
    def where(self) -> str:
        """The path as users write it: `train.epochs`."""
        return dotted(self.path)

    @property
    def is_lasting(self) -> bool:
        """Whether it remains if other settings are added to the tree or replaced."""
        return self.nature in ("unknown", "value")


def mistakes_of(error: ValidationError, owner: type[Settings], tree: object) -> list[Mistake]:
    """The mistakes in a tree, which is not a valid `owner`."""
    found: list[Mistake] = []
    for detail in error.errors(include_url=False):
        path, part = _follow(owner, detail["loc"])
        nature = _nature(detail, path, part)
        path = _inside(tree, path)
        found.append(Mistake(path, _message(detail, path, part), nature))
    return list(_joined(dict.fromkeys(found)))


def _joined(mistakes: Iterable[Mistake]) -> Iterator[Mistake]:
    """The mistakes, those of a value that has none of its field's types as one."""
    for path, found in itertools.groupby(mistakes, key=lambda mistake: mistake.path):
        first, *others = sorted(found, key=lambda mistake: mistake.message.startswith("should"))
        also = [each.message.partition(", found ")[0] for each in others]
        text = " Otherwise, it ".join([first.message, *also])
        yield Mistake(path, f"{text}." if also else text, first.nature)


def spec_or_mistakes(tree: Tree) -> TrialSpec | list[Mistake]:
    """The spec that a tree gives, or why it gives none."""
    try:
        return TrialSpec.model_validate(tree)
    except ValidationError as error:
        return mistakes_of(error, TrialSpec, tree)


def mistakes_in(tree: Tree) -> list[Mistake]:
    """Why a tree gives no spec; empty if it gives one."""
    found = spec_or_mistakes(tree)
    return [] if isinstance(found, TrialSpec) else found


def faults_of_entry(where: str, entry: Mapping[str, Any]) -> Iterator[Fault]:
    """The values in a partial cell that no trial can have."""
    known = {path: value for path, value in leaves(entry) if is_known(path) and value is not None}
    for mistake in mistakes_in(with_values({}, known)):
        if mistake.is_lasting:
            yield Fault(f"{where}.{mistake.where}", mistake.message)


def _nature(detail: ErrorDetails, path: TreePath, part: type[Settings] | None) -> Nature:
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return "unknown"
    if kind == "missing" or (kind == "unknown_part" and _lacks(value, "name")):
        return "incomplete"
    field = part.model_fields.get(str(path[-1])) if part and path else None
    if kind != "value_error" or (field is not None and not parts_in(field)):
        return "value"
    groups = parts_in(field).values() if field else ()
    named_by = [each.named_by for each in groups if issubclass(each, NamedSettings)]
    is_default = any(_lacks(value, name) for name in named_by)
    is_incomplete = is_default or isinstance(detail["ctx"]["error"], Incomplete)
    return "incomplete" if is_incomplete else "clash"


def _lacks(group: object, name: str) -> bool:
    return isinstance(group, dict) and name not in group


def dotted(path: TreePath) -> str:
    """`("grid", 0, "solver.steps")` as `grid[0].solver.steps`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".")


def _message(detail: ErrorDetails, path: TreePath, owner: type[Settings] | None) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_field(path, owner)
    if kind == "literal_error":
        field = next(key for key in reversed(path) if isinstance(key, str))
        if len(path) > 1 and path[-2] in BY_PLACE:
            field = str(path[-2])
        kind = f"value of `{field}`" if isinstance(path[-1], int) else field
        return unknown(value, kind, re.findall(r"'([^']*)'", context["expected"]))
    if kind == "unknown_part":
        name = value.get("name") if isinstance(value, dict) else value
        if name is None:
            return f"needs a `name`.{_name_meant(value, path)} Known: {context['known']}."
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


def _unknown_field(path: TreePath, owner: type[Settings] | None) -> str:
    """That a group has no such field; one that only one other group has is suggested."""
    fields = [name for name in owner.model_fields if name != WRITTEN_FIELD] if owner else []
    name, elsewhere = path[-1], ending_in(str(path[-1]))
    if is_known(dotted(path)):  # another kind of this group has it
        return f"{_kind_of(owner)} has no {shown(name)}. Known: {', '.join(fields)}."
    meant = kind_meant(dotted(path))
    if len(elsewhere) == 1 and not (meant or similar(name, fields)):
        return f"{shown(name)} is not a field here. Did you mean `{elsewhere[0]}`?"
    return unknown(name, "field", fields, meant and meant.rpartition(".")[2])


def _kind_of(owner: type[Settings] | None) -> str:
    """The name that a group of settings has: `mlp`."""
    name = owner.model_fields.get("name") if owner else None
    names = get_args(name.annotation) if name else ()
    return shown(names[0]) if len(names) == 1 else "this group"


def _name_meant(group: object, path: TreePath) -> str:
    """The field of a group without a `name` that was meant as one, as a question."""
    words = group if isinstance(group, dict) else ()
    others = [word for word in words if not is_known(dotted((*path, word)))]
    meant = [word for word in others if word in FOR_KINDS or similar(word, ["name"])]
    return f" Did you mean `name` by {shown(meant[0])}?" if meant else ""


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
