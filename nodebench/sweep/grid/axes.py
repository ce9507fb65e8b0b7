"""The axes of a grid's blocks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nodebench.errors import Fault, shown
from nodebench.sweep.paths import TOO_DEEP, axis_paths, is_too_deep
from nodebench.sweep.safe_yaml import Tree

Axis = tuple[tuple[str, ...], list[Any]]
"""The paths that an axis varies together, and its values."""

MOST_TRIALS = 1_000_000


def axes_of(block: Tree) -> list[Axis]:
    """The axes of a block; one that cannot be varied is left out."""
    axes = [(axis_paths(str(key)), values) for key, values in block.items()]
    return [(paths, values) for paths, values in axes if not _unusable(paths, values)]


def faults_of_axes(where: str, block: Tree) -> Iterator[Fault]:
    """The mistakes in a block's axes that do not depend on what their values mean."""
    taken: set[str] = set()
    for key, values in block.items():
        paths = axis_paths(str(key))
        found = ["give seeds as `seeds`, next to `grid`"] if "seed" in paths else []
        found += [f"`{path}` is in two axes of this block" for path in taken.intersection(paths)]
        if len(set(paths)) < len(paths):
            found.append("names a field twice")
        if why := _unusable(paths, values):
            found.append(why)
        taken.update(paths)
        yield from (Fault(f"{where}.{key}", what) for what in found)


def _unusable(paths: Sequence[str], values: Any) -> str:
    """Why an axis cannot be varied; empty if it can."""
    if any(map(is_too_deep, paths)):
        return TOO_DEEP
    if not isinstance(values, list) or not values:
        return f"an axis must be a list of values, found {shown(values)}"
    if len(paths) > 1 and any(not isinstance(v, list) or len(v) != len(paths) for v in values):
        return f"varies {len(paths)} fields: each value must be a list of {len(paths)}"
    return ""


def product(axes: Iterable[Axis]) -> Iterator[dict[str, Any]]:
    """The combinations of the values of axes, each as path -> value; the last varies fastest."""
    choices = [[values_of(paths, entry) for entry in entries] for paths, entries in axes]
    for parts in itertools.product(*choices):
        yield {path: value for part in parts for path, value in part.items()}


def values_of(paths: Sequence[str], entry: Any) -> dict[str, Any]:
    """The values, path -> value, that an entry of an axis's list gives."""
    return dict(zip(paths, entry if len(paths) > 1 else [entry], strict=True))


def excess(blocks: Sequence[Sequence[Axis]], repeats: Mapping[str, int]) -> str:
    """A message that names the largest axes if a sweep has too many trials, otherwise empty."""
    times = math.prod(repeats.values())
    sizes = [times * math.prod(len(values) for _, values in axes) for axes in blocks]
    total = sum(sizes)
    if total <= MOST_TRIALS:
        return ""
    largest = sizes.index(max(sizes))
    axes = sorted(blocks[largest], key=lambda axis: -len(axis[1]))[:10]
    factors = [f"{len(values):,} of {shown(', '.join(paths))}" for paths, values in axes]
    factors += [f"{count:,} of `{name}`" for name, count in repeats.items()]
    size = f"{total:,}" if total < 10**15 else f"10^{math.log10(total):.0f}"
    return (
        f"gives {size} trials; the maximum is {MOST_TRIALS:,}. The largest block, "
        f"grid[{largest}], has {' x '.join(factors)}"
    )
