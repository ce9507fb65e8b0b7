"""A sweep: its trials in order, and what distinguishes them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from nodebench.errors import counted
from nodebench.spec import Trial
from nodebench.spec.identity import Cell, canonical
from nodebench.spec.training import Limits
from nodebench.sweep.file import (
    Claim,
    Evaluate,
    Made,
    Resources,
    Search,
    SizeName,
    SweepFile,
)
from nodebench.sweep.grid.expansion import Repeat
from nodebench.sweep.labels import figure_labels, headings, labeled
from nodebench.sweep.partial_cells import SPEC_ORDER


@dataclass(frozen=True)
class Origin:
    """The file that a sweep was read from, and the other things on which its name depends."""

    file: str
    size: SizeName = "full"
    renamed: tuple[str, ...] = ()
    """The `--set` overrides of its name."""


@dataclass(frozen=True)
class Sweep:
    """A sweep file, expanded."""

    file: SweepFile
    trials: tuple[Trial, ...]
    text: str
    """The resolved sweep file as YAML: all that `repro` needs, without traces of this machine."""

    origin: Origin
    repeats: tuple[Repeat, ...] = ()
    """The combinations of the grid that give the configuration of an earlier one."""

    for_figures: bool = False
    """Whether long labels are cut, as figures need it."""

    def __repr__(self) -> str:
        return f"<Sweep {self.name}: {counted(len(self.trials), 'trial')}>"

    @property
    def name(self) -> str:
        """The name of its experiment, its report and its records."""
        return self.file.name

    @property
    def about(self) -> str:
        """The author's description of the sweep, and how it was changed."""
        return self.file.about

    @property
    def evaluate(self) -> tuple[Evaluate, ...]:
        """The solvers under which trained models are evaluated."""
        return self.file.evaluate

    @property
    def baseline(self) -> dict[str, Any]:
        """The partial cell that a report compares each cell with."""
        return self.file.baseline

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claims about its cells."""
        return self.file.claims

    @property
    def resources(self) -> Resources:
        """The resources of one trial."""
        return self.file.resources

    @property
    def limits(self) -> Limits:
        """The limits of one trial."""
        return self.file.limits

    @property
    def margin(self) -> float:
        """The loss of the metric under a finer solver up to which a model counts as an ODE."""
        return self.file.margin

    @property
    def checkpoint_minutes(self) -> float:
        """Minutes between checkpoints."""
        return self.file.checkpoint_minutes

    @property
    def search(self) -> Search | None:
        """How fields are sampled, if the sweep tunes."""
        return self.file.search

    @property
    def made(self) -> Made:
        """How it was made from its file."""
        return self.file.made

    @property
    def metric(self) -> str:
        """The metric of its trials, such as `accuracy`: all data sets of a sweep share it."""
        return self.trials[0].spec.data.metric

    @property
    def headline(self) -> str:
        """The metric's name in a trial's summary, such as `test_accuracy`."""
        return self.trials[0].spec.data.headline

    @property
    def higher_is_better(self) -> bool:
        """Whether larger values of the metric are better."""
        return self.trials[0].spec.data.higher_is_better

    @property
    def most_seeds(self) -> int:
        """The number of seeds of the cell with the most."""
        return max(Counter(trial.cell.key for trial in self.trials).values())

    @cached_property
    def varying(self) -> list[str]:
        """The settings, apart from the seed, that distinguish the cells of the sweep."""
        cells = list({cell.key: cell.settings for cell in self._cells}.values())
        paths = sorted({path for cell in cells for path in cell}, key=SPEC_ORDER.__getitem__)
        paths = _without_twins(paths, cells)
        values = {path: [canonical(cell[path]) for cell in cells if path in cell] for path in paths}
        telling = [path for path in paths if len(set(values[path])) > 1]
        told = {tuple(canonical(cell.get(path)) for path in telling) for cell in cells}
        if len(told) < len(cells):
            # Some cells differ only in which setting is present, such as steps or step_size.
            return [p for p in paths if p in telling or len(values[p]) < len(cells)]
        return telling

    @cached_property
    def headings(self) -> dict[str, str]:
        """The settings that vary -> their headings in a table, as short as is clear: `steps`."""
        groups = {path: self._group(path) for path in self.varying}
        short = headings(list(groups.values()))
        return {path: short[name] for path, name in groups.items()}

    def _group(self, path: str) -> str:
        """The path of a setting, or of its whole group if all settings in the group are equal."""
        group = path.rpartition(".")[0]
        agree = group.count(".") > 0 and all(
            value == cell.settings.get(path)
            for cell in self._cells
            for other, value in cell.settings.items()
            if other.rpartition(".")[0] == group
        )
        return group if agree else path

    def label(self, trial: Trial) -> str:
        """The label that distinguishes a trial within its sweep: `odenet euler 10 · s0`."""
        return f"{self.cell_label(trial)} · s{trial.spec.seed}"

    def cell_label(self, trial: Trial) -> str:
        """The same without the seed: `odenet euler 10`."""
        return self.labels[trial.cell.key]

    @cached_property
    def labels(self) -> dict[str, str]:
        """Cell key -> unique label: the cell's values, with their names where these are needed.

        For example, `width 16` rather than `16`, and `epochs 4` if another has `iterations 4`.
        """
        labels = labeled({cell.key: cell.settings for cell in self._cells}, self.varying)
        if not self.for_figures:
            return labels
        short = figure_labels(labels.values())
        return {key: short[label] for key, label in labels.items()}

    @cached_property
    def drawn(self) -> Sweep:
        """The same sweep for figures: long labels are cut."""
        return replace(self, for_figures=True)

    @cached_property
    def _cells(self) -> list[Cell]:
        return list(dict.fromkeys(trial.cell for trial in self.trials))


def _without_twins(paths: list[str], cells: list[dict[str, Any]]) -> list[str]:
    """Leaves out each path whose value follows from another path of its group.

    Its value may equal the other one's, such as norms that are all equal, or follow from the
    group's name, such as the right-hand side that each of two models has.
    """

    def is_twin(path: str, other: str) -> bool:
        if path.rpartition(".")[0] != other.rpartition(".")[0]:
            return False
        if all(path not in cell or cell.get(other) == cell[path] for cell in cells):
            return True
        if not other.endswith(".name"):
            return False
        pairs = {(canonical(cell.get(other)), canonical(cell.get(path))) for cell in cells}
        return len(pairs) == len({name for name, _ in pairs})

    kept: list[str] = []
    for path in paths:
        if not any(is_twin(path, other) for other in kept):
            kept.append(path)
    return kept
