"""Groups of settings, and functions that work with any such group."""

from __future__ import annotations

import importlib
import inspect
import math
import traceback
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any, ClassVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from nodebench.errors import InputError
from nodebench.spec.own_code import place_in_users_code

HOW_TO_NAME = (
    "Give `package.module:Name`, importable from where you start nodebench (set PYTHONPATH if "
    "necessary)"
)


class Settings(BaseModel):
    """One group of settings: immutable, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def _complete(self, **values: Any) -> None:
        """Sets derived fields during validation, the only time at which a group may change."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


def _part_name(value: Any) -> str | None:
    """The tag that discriminates a union of parts: a part's name, or `custom` for import paths."""
    name = getattr(value, "name", None) or (value.get("name") if isinstance(value, dict) else value)
    return "custom" if isinstance(name, str) and ":" in name else name


def choice(
    kind: str, table: Mapping[str, type[Settings]], custom: type[Settings] | None = None
) -> Any:
    """The type of a field that holds one part of a table, discriminated by `name`.

    A name with a colon is an import path, and its part has the type `custom`.
    """
    tagged = [Annotated[part, Tag(name)] for name, part in table.items()]
    if custom is not None:
        tagged.append(Annotated[custom, Tag("custom")])
    by_name = Discriminator(
        _part_name,
        custom_error_type="unknown_part",
        custom_error_message=kind,
        custom_error_context={"known": ", ".join(table)},
    )
    parts: Any = reduce(or_, tagged)
    return Annotated[parts, by_name]


def from_name(value: Any) -> Any:
    """Shorthand: a part's name stands for the part with its defaults."""
    return {"name": value} if isinstance(value, str) else value


class NamedSettings(Settings):
    """A group with a `name`, or another field `named_by`; its bare value stands for the group."""

    named_by: ClassVar[str] = "name"

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {cls.named_by: value} if isinstance(value, str) else value


class Incomplete(ValueError):
    """The reason why a group is invalid until it is given one more setting."""


def _finite(value: Any) -> Any:
    """Rejects NaN and infinities, which JSON, and so a trial's id, cannot distinguish from null."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a number should be finite, found `{value}`")
    if isinstance(value, (dict, list, tuple)):
        for inner in value.values() if isinstance(value, dict) else value:
            _finite(inner)
    return value


class ImportedSettings(Settings):
    """A part by import path, `package.module:Name`, with the settings that it is called with."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
    settings: Annotated[dict[str, Any], AfterValidator(_finite)] = {}


def flatten(part: Settings, prefix: str = "") -> dict[str, Any]:
    """Dotted path -> value, over all fields and nested parts that are set."""
    flat: dict[str, Any] = {}
    for name in _name_first(type(part)):
        value = getattr(part, name)
        if isinstance(value, Settings):
            flat |= flatten(value, f"{prefix}{name}.")
        elif value is not None:
            flat[prefix + name] = value
    return flat


def field_paths(owner: type[Settings], prefix: str = "") -> Iterator[str]:
    """Every dotted path that a part may have, groups included, over all alternatives."""
    for name in _name_first(owner):
        yield prefix + name
        for part in parts_in(owner.model_fields[name]).values():
            yield from field_paths(part, f"{prefix}{name}.")


def _name_first(owner: type[Settings]) -> list[str]:
    return sorted(owner.model_fields, key=lambda name: name != "name")


def parts_in(node: Any) -> dict[str, type[Settings]]:
    """The parts that an annotation admits, by union tag (by class name outside of unions)."""
    annotation = getattr(node, "annotation", node)
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return {annotation.__name__: annotation}
    found: dict[str, type[Settings]] = {}
    for argument in get_args(annotation):
        tag = next(
            (m.tag for m in getattr(argument, "__metadata__", ()) if isinstance(m, Tag)), None
        )
        inner = parts_in(argument)
        found |= {tag or name: part for name, part in inner.items()}
    return found


MODEL_ARGUMENTS = ("spec", "data")
DATA_ARGUMENTS = ("part", "seed", "root")
"""The arguments with which a user's own model, and a user's own data set, is called."""


def import_part(path: str, arguments: Sequence[str]) -> Any:
    """The object that an import path `package.module:Name` names, to be called with `arguments`.

    Raises:
        InputError: if there is none, importing it fails, or it does not take these arguments.
    """
    module, _, name = path.partition(":")
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        if isinstance(error, ImportError) and f"{module}.".startswith(f"{error.name}."):
            raise InputError(f"`{path}`: {error}. {HOW_TO_NAME}") from error
        raise InputError(f"`{path}`: importing `{module}` fails: {_told(error)}") from error
    if not hasattr(found, name):
        raise InputError(f"`{path}`: `{module}` has no `{name}`. {HOW_TO_NAME}")
    part = getattr(found, name)
    if not callable(part):
        raise InputError(
            f"`{path}` has the type `{type(part).__name__}`, which cannot be called. Name a "
            "function or a class"
        )
    try:
        signature = inspect.signature(part)
    except (TypeError, ValueError):  # code that is not written in Python
        return part
    try:
        signature.bind(*arguments)
    except TypeError as error:
        call = f"{name}({', '.join(arguments)})"
        raise InputError(
            f"`{path}` is called as `{call}`, but its signature is `{name}{signature}`: {error}"
        ) from error
    return part


def _told(error: BaseException) -> str:
    """An error in a user's code in one line: place, class, message."""
    file, line = place_in_users_code(error) or traceback.extract_tb(error.__traceback__)[-1][:2]
    text = " ".join(str(error).split())
    if isinstance(error, SyntaxError) and error.filename:
        file, line, text = error.filename, error.lineno, error.msg
    return f"`{file}`, line {line}: {type(error).__name__}: {text}"
