"""A part of a sweep's trials, by `--only` and `--shard`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import yaml

from nodebench.errors import Fault, SweepError, shown
from nodebench.spec import Trial
from nodebench.sweep import Sweep
from nodebench.sweep.mismatches import mismatches
from nodebench.sweep.partial_cells import agrees, leaves, misnamed
from nodebench.sweep.safe_yaml import parse
from nodebench.sweep.yaml_mistakes import why_unreadable


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
        lacking = mismatches(sweep.trials, cell)
        raise SweepError(
            sweep.name, [Fault("--only", f"no trial of this sweep has {each}") for each in lacking]
        )
    return frozenset(trial.id for trial in _dealt(trials, int(number[1]) - 1, int(number[2])))


def _partial_cell(texts: Sequence[str], faults: list[Fault]) -> dict[str, Any]:
    """The settings that `path=value` texts require; mistakes are appended to `faults`."""
    cell: dict[str, Any] = {}
    required: dict[str, tuple[Any, str]] = {}
    found: list[str] = []
    for text in texts:
        path, _, value = (part.strip() for part in text.partition("="))
        if not (path and value):
            found.append(f"{shown(text)} should read `dotted.path=value`, as in `seed=0`")
            continue
        try:
            setting = path, parse(value)
        except yaml.YAMLError as error:
            found.append(why_unreadable(error, text, value))
            continue
        cell |= [setting]
        for each, wanted in leaves(dict([setting])):
            before, other = required.setdefault(each, (wanted, text))
            if before != wanted:
                both = f"{shown(other)} and {shown(text)}"
                found.append(f"{both} exclude each other: run once for each value")
    found += [fault.what for fault in misnamed("--only", cell)]
    faults += [Fault("--only", what) for what in found]
    return cell


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
