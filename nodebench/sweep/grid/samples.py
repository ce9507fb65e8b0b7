"""The random samples of a search."""

from __future__ import annotations

import math
import random
from typing import Any

from nodebench.spec.seed import stream
from nodebench.sweep.file import Range, Search

SIGNIFICANT_DIGITS = 4
"""Sampled numbers are rounded to these digits, so that a label can show them."""


def samples_of(search: Search | None) -> list[dict[str, Any]]:
    """A search's samples, path -> value; without a search, one sample of nothing.

    Each path has its own random stream.
    """
    if search is None:
        return [{}]
    columns = {}
    for path, range_ in search.space.items():
        source = random.Random(stream(search.seed, "search", path))
        columns[path] = [_draw(range_, source) for _ in range(search.samples)]
    return [{path: column[i] for path, column in columns.items()} for i in range(search.samples)]


def _draw(range_: Range, source: random.Random) -> Any:
    if range_.choice is not None:
        return source.choice(range_.choice)
    if range_.integers is not None:
        return source.randint(*range_.integers)
    if range_.log_uniform is not None:
        low, high = map(math.log, range_.log_uniform)
        return _rounded(math.exp(source.uniform(low, high)))
    assert range_.uniform is not None
    return _rounded(source.uniform(*range_.uniform))


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
