"""Published numbers, from `published.yaml`, and the cells of sweeps that they belong to."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from nodebench.expansion import agrees
from nodebench.part import Part
from nodebench.spec import TrialSpec

METRICS = {
    "test_accuracy": "test accuracy %",
    "parameters": "parameters",
    "epoch_s": "s/epoch, on their machine",
    "nfe_forward_mean": "NFE forward, mean over training",
}


class Published(Part):
    """One number that a study reports of one cell of a sweep.

    Accuracies are shares of 1. `spread` is the standard deviation that the study gives, over `n`
    trainings; `read_off` says that the number was digitised from a figure, to within 0.01.
    `under: limit` is the trained network's result under the finest solver, not under its own.
    """

    cell: dict[str, Any]
    metric: Literal["test_accuracy", "parameters", "epoch_s", "nfe_forward_mean"] = "test_accuracy"
    value: float
    spread: float | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    under: Literal["limit"] | None = None
    read_off: bool = False
    source: str

    def __str__(self) -> str:
        percent = 100 if self.metric == "test_accuracy" else 1
        text = f"{self.value * percent:.6g}"
        if self.spread is not None:
            text += f" ± {self.spread * percent:.6g}"
        if self.n is not None:
            text += f" (n = {self.n})"
        return f"~{text}" if self.read_off else text

    @property
    def what(self) -> str:
        """The metric in words."""
        return METRICS[self.metric] + (", at the limit" if self.under else "")


class Study(Part):
    """The published numbers of one sweep; they hold on the data set that it names."""

    data: str
    numbers: tuple[Published, ...]


@lru_cache
def studies() -> dict[str, Study]:
    """Sweep -> its published numbers."""
    text = (Path(__file__).parent / "published.yaml").read_text(encoding="utf-8")
    return {sweep: Study.model_validate(study) for sweep, study in yaml.safe_load(text).items()}


def about(sweep: str, spec: TrialSpec) -> list[Published]:
    """The numbers about a trial's cell; a small sweep has those of its full size."""
    study = studies().get(sweep.removesuffix("-small"))
    if study is None or study.data != spec.data.name:
        return []
    return [entry for entry in study.numbers if agrees(spec, entry.cell)]


def shown(sweep: str, spec: TrialSpec) -> str:
    """The published test accuracy of a trial's cell, as a table shows it; empty if none is."""
    entries = about(sweep, spec)
    return ", ".join(str(e) for e in entries if e.metric == "test_accuracy" and not e.under)
