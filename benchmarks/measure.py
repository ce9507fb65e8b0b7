"""Times of several ways to do one thing, taken in turn, and the table that tells them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Case = Callable[[], object]


class Took(float):
    """The seconds of a case that has measured itself, in a process of its own."""


@dataclass(frozen=True)
class Row:
    """A way of doing something, beside another that takes `ratio` times as long.

    The ratio is the median over rounds, each of which takes both in turn; `least` and `most` are
    those of single rounds. `asked` is what the project asks of itself. A peer that is not installed
    has none of these figures.
    """

    what: str
    ours_s: float
    beside: str
    beside_s: float | None
    ratio: float | None
    least: float | None
    most: float | None
    rounds: int
    asked: str = "–"


def interleaved(cases: Mapping[str, Case], rounds: int, warm: int = 1) -> dict[str, list[float]]:
    """Seconds of each case in each round; rounds go over all cases, so that drift favours none."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(-warm, rounds):
        for name, case in cases.items():
            start = time.perf_counter()
            found = case()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number >= 0:
                elapsed = time.perf_counter() - start
                seconds[name].append(found if isinstance(found, Took) else elapsed)
    return seconds


def in_a_row(case: Case, count: int) -> Callable[[], Took]:
    """A case that is taken so many times a round: the seconds of one, in the mean.

    It is taken once before, untimed, as the caches are full of another case then.
    """

    def take() -> Took:
        case()
        start = time.perf_counter()
        for _ in range(count):
            case()
        return Took((time.perf_counter() - start) / count)

    return take


def compared(
    what: str, ours: Sequence[float], beside: str, other: Sequence[float], asked: str = "–"
) -> Row:
    """A row from the seconds of two cases of one interleaved run; no seconds: not installed."""
    if not other:
        return Row(what, statistics.median(ours), beside, *[None] * 4, len(ours), asked)
    ratios = [theirs / own for theirs, own in zip(other, ours, strict=True)]
    return Row(
        what,
        statistics.median(ours),
        beside,
        statistics.median(other),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        len(ratios),
        asked,
    )
