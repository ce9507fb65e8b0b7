"""A part of a sweep's trials, by `--only` and `--shard`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from nodebench.errors import Fault, SweepError, shown
from nodebench.sweep import Sweep
from nodebench.sweep.match import agrees, misnamed, named_paths
from nodebench.sweep.safe_yaml import parse


@dataclass(frozen=True)
class Selection:
    """Which of a sweep's trials: those that `path=value` texts and a shard `i/n` leave."""

    only: Sequence[str] = ()
    shard: str = "1/1"
    retry_failed: bool = False
    """Whether trials that did not finish (DNF) are tried again."""

    def ids(self, sweep: Sweep) -> frozenset[str]:
        """The ids of these trials; as `chosen`."""
        return chosen(sweep, self.only, self.shard)


def chosen(sweep: Sweep, only: Sequence[str], shard: str) -> frozenset[str]:
    """The ids of the trials that `path=value` texts and a shard `i/n` leave.

    Raises:
        SweepError: if they cannot be read, or the texts leave none; of few trials, a shard may.
    """
    cell: dict[str, Any] = {}
    faults: list[Fault] = []
    for text in only:
        path, equals, value = text.partition("=")
        try:
            found: dict[str, Any] = {path.strip(): parse(value)} if equals else {}
        except yaml.YAMLError:
            found = {}
        cell |= found
        if not found:
            faults.append(Fault("--only", f"{shown(text)} should read `dotted.path=value`"))
    faults += misnamed("--only", cell)
    number = re.fullmatch(r"([1-9]\d{0,6})/([1-9]\d{0,6})", shard)
    if number is None or int(number[1]) > int(number[2]):
        faults.append(
            Fault("--shard", f"{shown(shard)} should read i/n with 1 <= i <= n, as in 1/8")
        )
    if faults or number is None:
        raise SweepError(sweep.name, faults)
    first, step = int(number[1]) - 1, int(number[2])
    ids = frozenset(trial.id for trial in sweep.trials[first::step] if agrees(trial.spec, cell))
    if not ids and not any(agrees(trial.spec, cell) for trial in sweep.trials):
        message = f"matches no trial of this sweep. Its trials have {_there(sweep, cell)}"
        raise SweepError(sweep.name, [Fault("--only", message)])
    return ids


def _there(sweep: Sweep, cell: Mapping[str, Any]) -> str:
    """What the sweep's trials have where a partial cell names something."""
    found: dict[str, set[str]] = {}
    for named in named_paths(cell):
        for settings in (trial.settings for trial in sweep.trials):
            for path in (p for p in settings if f"{p}.".startswith(f"{named}.")):
                found.setdefault(path, set()).add(shown(settings[path]))
    values = (f"`{path}` {', '.join(sorted(those))}" for path, those in found.items())
    return "; ".join(values) or "no such setting"
