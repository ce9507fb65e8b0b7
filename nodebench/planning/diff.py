"""The inputs that a trial's id hashes, and the differences between a trial and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from nodebench.errors import StoreError
from nodebench.spec import Trial
from nodebench.spec.identity import canonical, numerics
from nodebench.store import Store
from nodebench.sweep import Sweep

OTHER_CODE = "nodebench's numerics, or code that an earlier release did not record"
"""The explanation if trials with equal settings and code have different ids."""

HASH_LENGTH = 12

MOST_COMPARED = 1000


@dataclass(frozen=True)
class Difference:
    """A setting in which two trials differ; None if one of them lacks it."""

    path: str
    here: Any
    there: Any

    def __str__(self) -> str:
        return f"{self.path}: {_shown(self.here)} here, {_shown(self.there)} there"

    @property
    def as_change(self) -> str:
        """`train.epochs: 8 -> 5`, where `there` is the older one."""
        return f"{self.path}: {_shown(self.there)} -> {_shown(self.here)}"


def inputs(trial: Trial) -> dict[str, Any]:
    """Everything that the id hashes: settings by dotted path, numerics, the user's code."""
    return {**trial.settings, "numerics": numerics(trial.spec), **_code(trial.cell.code_hashes)}


def _code(modules: Mapping[str, str | None]) -> dict[str, str]:
    """The shortened hashes of modules, as shown to users."""
    return {
        f"code of {name}": (hash_ or "not found")[:HASH_LENGTH] for name, hash_ in modules.items()
    }


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[Difference]:
    """The settings in which two trials differ."""
    return [
        Difference(path, here.get(path), there.get(path))
        for path in dict.fromkeys([*here, *there])
        if canonical(here.get(path)) != canonical(there.get(path))
    ]


def nearest(trial: Trial, store: Store) -> tuple[str, list[Difference]] | None:
    """The finished trial in the store with the most settings in common, and the differences.

    Ties are broken by the differences in the user's code. None if the store has no such trial.
    """
    others: list[tuple[int, int, str, list[Difference]]] = []
    for other_id, result in store.results().items():
        if other_id == trial.id or not result.is_finished:
            continue
        try:
            other = store.folder(other_id).trial()
        except StoreError:  # a damaged folder has nothing to compare
            continue
        found = differences(trial.settings, other.settings)
        code = other.cell.recorded_code_hashes
        modules = [] if code is None else differences(_code(trial.cell.code_hashes), _code(code))
        others.append((len(found), len(modules), other_id, found + modules))
    return min(others, key=lambda other: other[:3])[2:] if others else None


@dataclass(frozen=True)
class Change:
    """The changes of a sweep between two versions of its file."""

    same: int
    new: dict[str, tuple[str, list[Difference]]]
    """id -> label, and how it differs from the most similar trial that is gone, if any is."""

    gone: dict[str, str]
    """id -> label."""

    fields: list[str]
    """The other fields that differ: `evaluate`, `limits`, …"""


def change(old: Sweep, new: Sweep) -> Change:
    """The changes from one version of a sweep's file to another."""
    before = {trial.id: trial for trial in old.trials}
    after = {trial.id: trial for trial in new.trials}
    added = {id_: trial for id_, trial in after.items() if id_ not in before}
    gone = {id_: trial for id_, trial in before.items() if id_ not in after}
    # Only the first of very many: whole axes have changed then, and any trial shows which.
    compared = _told_apart(list(gone.values())[:MOST_COMPARED])
    names = ("search", "evaluate", "resources", "limits", "margin", "checkpoint_minutes")
    return Change(
        same=len(after) - len(added),
        new={id_: (new.label(trial), _least(trial, compared)) for id_, trial in added.items()},
        gone={id_: old.label(trial) for id_, trial in gone.items()},
        fields=[name for name in names if getattr(old, name) != getattr(new, name)],
    )


Items: TypeAlias = "frozenset[tuple[str, str]]"
"""The settings of a trial, as (path, value)."""


def _items(trial: Trial) -> Items:
    return frozenset((path, canonical(value)) for path, value in trial.settings.items())


def _told_apart(trials: Sequence[Trial]) -> list[tuple[Trial, Items]]:
    """Trials with the settings that not all of them have, since only these tell which is nearer."""
    found = [_items(trial) for trial in trials]
    shared = frozenset.intersection(*found) if found else frozenset()
    return [(trial, items - shared) for trial, items in zip(trials, found, strict=True)]


def _least(trial: Trial, others: Sequence[tuple[Trial, Items]]) -> list[Difference]:
    """The differences from the trial with the fewest differing values; empty without others."""
    own = _items(trial) & frozenset().union(*(items for _, items in others))
    counts = [len(own ^ items) for _, items in others]
    if not counts:
        return []
    nearest_one, _ = others[counts.index(min(counts))]
    return differences(trial.settings, nearest_one.settings)


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"`{value}`"
