"""Launch options, and the keyword arguments of `nodebench.run`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from inspect import Parameter
from typing import Any, TypedDict, TypeVar

from nodebench.errors import unknown
from nodebench.execution.publishing import Publication
from nodebench.execution.runner import Backend
from nodebench.planning.lookup import load_sweep
from nodebench.planning.selection import Selection
from nodebench.sweep.compose import meant_by

F = TypeVar("F", bound=Callable[..., Any])


class RunKeywords(TypedDict, total=False):
    """The keywords of `nodebench.run` and `nodebench.evaluate`: the fields of `Launch`."""

    only: str | Sequence[str]
    shard: str
    retry_failed: bool
    inline: bool | None
    cpu: bool
    fail_fast: bool
    track: bool
    require_mlflow: bool
    write_report: bool
    replace_other: bool


@dataclass(frozen=True)
class Launch(Publication, Backend, Selection):
    """How a sweep is launched: which trials run, where they run, and where results appear."""

    @classmethod
    def by_keywords(cls, function: str, how: RunKeywords) -> Launch:
        """A launch from the keywords that a function of `nodebench` was called with.

        Raises:
            TypeError: if a keyword is unknown.
        """
        known = RunKeywords.__annotations__
        if others := how.keys() - known.keys():
            wrong = min(others)
            why = _of_the_sweep(wrong, dict(how)[wrong]) or unknown(wrong, "keyword", known)
            raise TypeError(f"`nodebench.{function}`: {why}")
        return cls(**how)  # pyrefly: ignore[open-unpacking]  # others were just refused


def with_keywords(function: F) -> F:
    """Decorator: `help` and completion show the keywords of `RunKeywords` with their defaults."""
    own = inspect.signature(function)
    first = [each for each in own.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
    by_name = {field.name: field for field in fields(Launch)}
    further = [
        Parameter(
            name, Parameter.KEYWORD_ONLY,
            default=by_name[name].default, annotation=by_name[name].type,
        )
        for name in RunKeywords.__annotations__
    ]  # fmt: skip
    shown: Any = function
    shown.__signature__ = own.replace(parameters=[*first, *further])
    return function


def _of_the_sweep(keyword: str, value: object) -> str:
    """The remedy for a keyword with which a sweep is loaded, not launched; otherwise empty."""
    if keyword in inspect.signature(load_sweep).parameters:
        given, what = f"{keyword}={value!r}", "is a keyword of `load_sweep`"
    elif paths := meant_by(keyword):
        value = [value] if paths[0] == "seeds" and isinstance(value, int) else value
        given, what = f"overrides={{{paths[0]!r}: {value!r}}}", "is a setting of the sweep"
    else:
        return ""
    return f"`{keyword}` {what}: pass `nodebench.load_sweep(SWEEP, {given})` as the sweep"
