"""A trial's name: a hash of everything that decides its result, and of nothing else."""

from __future__ import annotations

import hashlib
import importlib.machinery
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from nodebench.part import flatten
from nodebench.spec import TrialSpec


@dataclass(frozen=True)
class Revision:
    """A change of code or of a default that changed results, or what checkpoints hold.

    `affects` says of which trials: only these get another id, and all others keep their results.
    """

    number: int
    change: str
    affects: Callable[[TrialSpec], bool]


def _is_by_a_studys_rule(spec: TrialSpec) -> bool:
    """Whether one of revision 5's rules decides the trial."""
    if spec.data.name == "spiral":
        return True
    adapted = spec.solver if spec.solver and spec.solver.adapt else None
    return adapted is not None and (
        adapted.facts.kind == "adaptive" or adapted.method == "midpoint"
    )


REVISIONS: tuple[Revision, ...] = (
    Revision(4, "channels last, dense fields as one operation", lambda _spec: True),
    Revision(
        5,
        "the studies' own rules: tolerance adaptation compares with the last five training "
        "iterations, the reference of an adapted midpoint rule is the 3/8 rule (Ott et al. 2021), "
        "a spiral's windows start in [0, T - 5] (saparina/neural-ode)",
        _is_by_a_studys_rule,
    ),
)
"""The changes of results, the newest last. Trials hold the number of the last that affects them."""

NUMERICS = REVISIONS[-1].number
"""The newest revision's number."""


def numerics(spec: TrialSpec) -> int:
    """The number of the newest revision that affects a trial: part of its id."""
    return max(each.number for each in REVISIONS if each.affects(spec))


@dataclass(frozen=True, eq=False)
class Cell:
    """A resolved spec whatever its seed: what the trials of all seeds have in common."""

    spec: TrialSpec

    def trial(self, seed: int) -> Trial:
        """The trial of a seed."""
        return Trial(self.spec.model_copy(update={"seed": seed}), self)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides the result, as plain values."""
        identity: dict[str, Any] = self.spec.model_dump(mode="json", exclude_defaults=True)
        identity.pop("seed", None)
        sources = {path: _source_hash(path) for path in self.spec.import_paths}
        if self.spec.weights is not None:
            identity["weights"] = _file_hash(self.spec.weights)
        identity |= {"numerics": numerics(self.spec)} | ({"sources": sources} if sources else {})
        return {key: _plain(value) for key, value in identity.items()}

    @cached_property
    def key(self) -> str:
        """The same for cells that are alike."""
        return _ENCODER.encode(self.identity)

    @property
    def set_paths(self) -> list[str]:
        """The dotted paths of what is not left at its default."""
        return list(_paths(self.spec.model_dump(mode="json", exclude_defaults=True)))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Dotted path -> value."""
        return {path: value for path, value in flatten(self.spec).items() if path != "seed"}


@dataclass(frozen=True)
class Trial:
    """A resolved spec and the names that follow from it."""

    spec: TrialSpec
    shared: Cell | None = field(default=None, compare=False, repr=False)
    """The cell, where it is at hand: a sweep of many seeds works its names out once."""

    @cached_property
    def cell(self) -> Cell:
        """The same whatever the seed."""
        return self.shared or Cell(self.spec)

    @cached_property
    def id(self) -> str:
        """12 hex digits that stand for everything that decides the result."""
        return _digest(self._identity)

    @cached_property
    def recipe_id(self) -> str:
        """The id without the number of epochs."""
        train = {k: v for k, v in self._identity.get("train", {}).items() if k != "epochs"}
        return _digest(self._identity | {"train": train})

    @property
    def _identity(self) -> dict[str, Any]:
        # Defaults are left out, and so is the seed 0.
        return self.cell.identity | ({"seed": self.spec.seed} if self.spec.seed else {})

    @cached_property
    def is_identified(self) -> bool:
        """Whether every file on which the id depends was found; else it is another elsewhere."""
        weights = self.spec.weights
        found = [_source_hash(path) for path in self.spec.import_paths]
        return None not in found and (weights is None or _file_hash(weights) is not None)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Dotted path -> value: the columns of tables and the parameters of MLflow."""
        return self.cell.settings | {"seed": self.spec.seed}


def _paths(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _digest(plain: object) -> str:
    return hashlib.sha256(_ENCODER.encode(plain).encode()).hexdigest()[:12]


def canonical(value: object) -> str:
    """Canonical JSON: sorted keys, no spaces, 1.0 written as 1."""
    return _ENCODER.encode(_plain(value))


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


@lru_cache
def _source_hash(import_path: str) -> str | None:
    """The SHA-256 of the file that an import path names, found without importing it."""
    folders = sys.path
    for name in import_path.partition(":")[0].split("."):
        found = importlib.machinery.PathFinder.find_spec(name, folders)
        if found is None:
            return None
        folders = list(found.submodule_search_locations or ())
    if found is None or found.origin is None:
        return None
    return _file_hash(found.origin)


@lru_cache
def _file_hash(path: str) -> str | None:
    """The SHA-256 of a file; None if it cannot be read, which is said when it is needed."""
    if not os.path.isfile(path):  # a device may have no end
        return None
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
