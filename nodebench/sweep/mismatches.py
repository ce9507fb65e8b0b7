"""Why no trial of a sweep has the settings of a partial cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nodebench.errors import shortened, shown, similar
from nodebench.spec import Trial
from nodebench.sweep.partial_cells import agrees, named_paths
from nodebench.sweep.paths import is_within
from nodebench.sweep.safe_yaml import inline


def mismatches(trials: Sequence[Trial], cell: Mapping[str, Any]) -> Iterator[str]:
    """Texts that complete "no trial has …", for a partial cell that no trial agrees with.

    There is one for each setting that no trial has, with the values that they have there; or one
    for all settings, if there are trials with each of them.
    """
    lacking = {
        path: value
        for path, value in cell.items()
        if not any(agrees(trial.spec, {path: value}) for trial in trials)
    }
    for path, value in lacking.items():
        yield f"{_assignment(path, value)}. {_values_text(trials, path, value)}"
    if not lacking:
        both = " and ".join(_assignment(path, value) for path, value in cell.items())
        yield f"{both} at once: leave one out"


def _assignment(path: str, value: Any) -> str:
    return shown(f"{path}={inline(value)}")


def _values_text(trials: Sequence[Trial], path: str, value: Any) -> str:
    """The values of a setting, or of the settings in a group, that trials have."""
    found: dict[str, dict[str, None]] = {}
    for named in named_paths({path: value}):
        for settings in (trial.settings for trial in trials):
            for known in (p for p in settings if is_within(p, named)):
                found.setdefault(known, {})[inline(settings[known])] = None
    if not found:
        return f"None has a {shown(path)}"
    words = [word for values in found.values() for word in values]
    meant = similar(value, words) if isinstance(value, str) else []
    hint = "".join(f"Did you mean `{word}`? " for word in meant)
    has_lists = any(word.startswith("[") for word in words)
    if isinstance(value, list) and not has_lists:
        hint += "Give one value, and run once for each. "
    there = (f"`{known}` is {shortened(values)}" for known, values in found.items())
    return f"{hint}In its trials, {'; '.join(there)}"
