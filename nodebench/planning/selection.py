"""A part of a sweep's trials, by `--only` and `--shard`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import yaml

from nodebench.errors import Fault, SweepError, shortened, shown, similar
from nodebench.spec import Trial
from nodebench.sweep import Sweep
from nodebench.sweep.partial_cells import agrees, leaves, misnamed, named_paths
from nodebench.sweep.safe_yaml import inline, parse


@dataclass(frozen=True)
class Selection:
    """A part of a sweep's trials: those that match `path=value` texts and are in a shard `i/n`."""

    only: str | Sequence[str] = ()
    shard: str = "1/1"
    retry_failed: bool = False
    """Whether trials that did not finish (DNF) are retried."""

    @property
    def is_whole(self) -> bool:
        """Whether all trials are selected."""
        return not self.only and self.shard == "1/1"

    def ids(self, sweep: Sweep) -> frozenset[str]:
        """The ids of these trials, from `chosen`."""
        only = [self.only] if isinstance(self.only, str) else self.only
        return chosen(sweep, only, self.shard)


def chosen(sweep: Sweep, only: Sequence[str], shard: str) -> frozenset[str]:
    """The ids of the trials that match `path=value` texts and are in a shard `i/n`.

    Raises:
        SweepError: if a text or the shard cannot be read, or no trial matches the texts. A shard of
            few trials may be empty.
    """
    faults: list[Fault] = []
    cell = _partial_cell(only, faults)
    number = re.fullmatch(r"([1-9]\d{0,6})/([1-9]\d{0,6})", shard)
    if number is None or int(number[1]) > int(number[2]):
        faults.append(
            Fault("--shard", f"{shown(shard)} should read i/n with 1 <= i <= n, as in 1/8")
        )
    if faults or number is None:
        raise SweepError(sweep.name, faults)
    trials = [trial for trial in sweep.trials if agrees(trial.spec, cell)]
    if not trials:
        raise SweepError(sweep.name, _mismatches(sweep, cell))
    return frozenset(trial.id for trial in _dealt(trials, int(number[1]) - 1, int(number[2])))


def _partial_cell(texts: Sequence[str], faults: list[Fault]) -> dict[str, Any]:
    """The settings that `path=value` texts require; mistakes are appended to `faults`."""
    cell: dict[str, Any] = {}
    required: dict[str, tuple[Any, str]] = {}
    found: list[str] = []
    for text in texts:
        if (setting := _setting(text)) is None:
            found.append(f"{shown(text)} should read `dotted.path=value`, as in `seed=0`")
            continue
        cell |= [setting]
        for path, value in leaves(dict([setting])):
            before, other = required.setdefault(path, (value, text))
            if before != value:
                both = f"{shown(other)} and {shown(text)}"
                found.append(f"{both} exclude each other: run once for each value")
    found += [fault.what for fault in misnamed("--only", cell)]
    faults += [Fault("--only", what) for what in found]
    return cell


def _setting(text: str) -> tuple[str, Any] | None:
    """The path and the value in `path=value`; None if one is missing or the value is not YAML."""
    path, _, value = (part.strip() for part in text.partition("="))
    if path and value:
        with contextlib.suppress(yaml.YAMLError):
            return path, parse(value)
    return None


def _mismatches(sweep: Sweep, cell: Mapping[str, Any]) -> list[Fault]:
    """Why no trial has a partial cell's settings: those that none has, or all of them together."""
    lacking = {
        path: value
        for path, value in cell.items()
        if not any(agrees(trial.spec, {path: value}) for trial in sweep.trials)
    }
    if not lacking:
        both = " and ".join(_assignment(path, value) for path, value in cell.items())
        return [Fault("--only", f"no trial of this sweep has {both} at once: leave one out")]
    return [
        Fault(
            "--only",
            f"no trial of this sweep has {_assignment(path, value)}. "
            f"{_values_text(sweep, path, value)}",
        )
        for path, value in lacking.items()
    ]


def _assignment(path: str, value: Any) -> str:
    return shown(f"{path}={inline(value)}")


def _dealt(trials: Sequence[Trial], first: int, shards: int) -> list[Trial]:
    """The trials of one shard. Shards differ by at most one trial if cells have equal seeds.

    Cells are dealt out whole, so that their seeds can be packed, as long as there is one for each
    shard. The remaining cells, fewer than shards, are dealt out seed by seed.
    """
    of_cell: dict[str, list[Trial]] = {}
    for trial in trials:
        of_cell.setdefault(trial.cell.key, []).append(trial)
    cells = list(of_cell.values())
    whole = len(cells) - len(cells) % shards
    rest = list(chain.from_iterable(cells[whole:]))
    return [*chain.from_iterable(cells[first:whole:shards]), *rest[first::shards]]


def _values_text(sweep: Sweep, path: str, value: Any) -> str:
    """The values of a setting, or of the settings in a group, that the sweep's trials have."""
    found: dict[str, dict[str, None]] = {}
    for named in named_paths({path: value}):
        for settings in (trial.settings for trial in sweep.trials):
            for known in (p for p in settings if f"{p}.".startswith(f"{named}.")):
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
