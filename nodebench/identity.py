"""A trial's name: a hash of everything that decides its result, and of nothing else."""

from __future__ import annotations

import hashlib
import importlib.machinery
import json
import sys
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from nodebench.part import flatten
from nodebench.spec import TrialSpec

NUMERICS = 3
"""Part of every trial's id.

Raise it whenever a change of code or of a default changes results, or what checkpoints hold.
"""


@dataclass(frozen=True)
class Trial:
    """A resolved spec and the names that follow from it."""

    spec: TrialSpec

    @cached_property
    def id(self) -> str:
        """12 hex digits that stand for everything that decides the result."""
        return _digest(self._identity)

    @cached_property
    def recipe_id(self) -> str:
        """The id without the number of epochs."""
        train = {k: v for k, v in self._identity.get("train", {}).items() if k != "epochs"}
        return _digest(self._identity | {"train": train})

    @cached_property
    def _identity(self) -> dict[str, Any]:
        identity: dict[str, Any] = self.spec.model_dump(mode="json", exclude_defaults=True)
        sources = {path: _source_hash(path) for path in self.spec.import_paths}
        if self.spec.weights is not None:
            identity["weights"] = _file_hash(self.spec.weights)
        return identity | {"numerics": NUMERICS} | ({"sources": sources} if sources else {})

    @cached_property
    def is_identified(self) -> bool:
        """Whether every file on which the id depends was found; else it is another elsewhere."""
        weights = self.spec.weights
        found = [_source_hash(path) for path in self.spec.import_paths]
        return None not in found and (weights is None or _file_hash(weights) is not None)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Dotted path -> value: the columns of tables and the parameters of MLflow."""
        return flatten(self.spec)


def _digest(identity: object) -> str:
    return hashlib.sha256(canonical(identity).encode()).hexdigest()[:12]


def canonical(value: object) -> str:
    """Canonical JSON: sorted keys, no spaces, 1.0 written as 1."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


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
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return None
