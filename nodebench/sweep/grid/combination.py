"""A combination of a grid's values, which gives a cell or is a misfit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from nodebench.spec import TrialSpec
from nodebench.spec.identity import Cell
from nodebench.sweep.file import SweepFile
from nodebench.sweep.grid.axes import Axis, axes_of, product, values_of
from nodebench.sweep.grid.samples import samples_of
from nodebench.sweep.paths import with_values
from nodebench.sweep.safe_yaml import Tree
from nodebench.sweep.validation import Mistake, spec_or_mistakes


class Combination(NamedTuple):
    """Values of the axes and of a search's sample, path -> value, and the cell that they give."""

    values: Mapping[str, Any]
    cell: Cell


class Misfit(NamedTuple):
    """Values with which `base` is not a trial, and the mistakes that it has then."""

    block: str
    """The place of the block whose axes have them, such as `grid[0]`."""

    axes: Sequence[Axis]
    values: Mapping[str, Any]
    tree: Tree
    """`base` with the values, as written: without defaults."""

    mistakes: tuple[Mistake, ...]

    @property
    def may_be_excluded(self) -> bool:
        """Whether it has no word or value that is wrong in every combination."""
        return not any(mistake.is_lasting for mistake in self.mistakes)

    def entry(self, path: str) -> str:
        """The place of the value at a path in the list of its axis: `solver.steps[1]`."""
        for paths, entries in self.axes:
            for number, entry in enumerate(entries if path in paths else ()):
                if values_of(paths, entry)[path] is self.values[path]:
                    return f"{path}[{number}]"
        return path  # a search's sample


def combinations(file: SweepFile) -> Iterator[Combination | Misfit]:
    """The combinations of all blocks, each validated once."""
    base, samples = base_of(file), samples_of(file.search)
    for number, block in enumerate(file.grid):
        axes = axes_of(block)
        for values, sample in itertools.product(product(axes), samples):
            tree = with_values(base, values | sample)
            found = spec_or_mistakes(tree)
            if isinstance(found, TrialSpec):
                yield Combination(values | sample, Cell(found))
            else:
                yield Misfit(f"grid[{number}]", axes, values | sample, tree, tuple(found))


def base_of(file: SweepFile) -> Tree:
    """A file's `base` without a seed, which does not belong there."""
    return {key: value for key, value in file.base.items() if key != "seed"}
