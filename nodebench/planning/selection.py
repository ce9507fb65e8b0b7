"""A part of a sweep's trials, by `--only` and `--shard`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import yaml

from nodebench.errors import Fault, SweepError, shown
from nodebench.spec import Trial
from nodebench.sweep import Sweep
from nodebench.sweep.partial_cells import agrees, misnamed, named_paths
from nodebench.sweep.safe_yaml import parse


@dataclass(frozen=True)
class Selection:
    """A part of a sweep's trials: those that match `path=value` texts and are in a shard `i/n`."""

    only: Sequence[str] = ()
    shard: str = "1/1"
    retry_failed: bool = False
    """Whether trials that did not finish (DNF) are retried."""

    def ids(self, sweep: Sweep) -> frozenset[str]:
        """The ids of these trials, from `chosen`."""
        return chosen(sweep, self.only, self.shard)


def chosen(sweep: Sweep, only: Sequence[str], shard: str) -> frozenset[str]:
    """The ids of the trials that match `path=value` texts and are in a shard `i/n`.

    Raises:
        SweepError: if a text or the shard cannot be read, or no trial matches the texts. A shard of
            few trials may be empty.
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
    trials = [trial for trial in sweep.trials if agrees(trial.spec, cell)]
    if not trials:
        message = f"matches no trial of this sweep. Its trials have {_there(sweep, cell)}"
        raise SweepError(sweep.name, [Fault("--only", message)])
    return frozenset(trial.id for trial in _dealt(trials, int(number[1]) - 1, int(number[2])))


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


def _there(sweep: Sweep, cell: Mapping[str, Any]) -> str:
    """The values that the sweep's trials have for the settings that a partial cell names."""
    found: dict[str, set[str]] = {}
    for named in named_paths(cell):
        for settings in (trial.settings for trial in sweep.trials):
            for path in (p for p in settings if f"{p}.".startswith(f"{named}.")):
                found.setdefault(path, set()).add(shown(settings[path]))
    values = (f"`{path}` {', '.join(sorted(those))}" for path, those in found.items())
    return "; ".join(values) or "no such setting"
