"""Published numbers, from `published.yaml`, and the cells of sweeps that they belong to."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from nodebench.part import Part
from nodebench.spec import Solver, TrialSpec
from nodebench.sweep import agrees

Metric = Literal["test_accuracy", "parameters", "epoch_s", "nfe_forward"]


class Published(Part):
    """One number that a study reports of one cell of a sweep.

    Accuracies are shares of 1. `spread` is the standard deviation that the study gives, over `n`
    trainings; `read_off` says that the number was digitised from a figure, to within 0.01.
    `high` makes it a range from `value` to `high`. With `under`, it is the trained network's
    result under that solver, not under its own; `limit` is that under the finest.
    """

    cell: dict[str, Any]
    metric: Metric = "test_accuracy"
    value: float
    high: float | None = None
    spread: float | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    under: Solver | Literal["limit"] | None = None
    read_off: bool = False
    source: str

    def __str__(self) -> str:
        percent = 100 if self.metric == "test_accuracy" else 1
        text = f"{self.value * percent:.6g}"
        if self.high is not None:
            text += f"–{self.high * percent:.6g}"
        if self.spread is not None:
            text += f" ± {self.spread * percent:.6g}"
        return f"~{text}" if self.read_off else text


def published(sweep: str) -> list[Published]:
    """The numbers that belong to a sweep, or to the full size of a small one."""
    return _all().get(sweep.removesuffix("-small"), [])


def shown(sweep: str, spec: TrialSpec) -> str:
    """The published test accuracy of a trial's cell, as a table shows it; empty if none is."""
    found = (
        entry
        for entry in published(sweep)
        if entry.metric == "test_accuracy" and entry.under is None and agrees(spec, entry.cell)
    )
    return ", ".join(map(str, found))


@lru_cache
def _all() -> dict[str, list[Published]]:
    text = (Path(__file__).parent / "published.yaml").read_text(encoding="utf-8")
    return {
        sweep: [Published.model_validate(entry) for entry in entries]
        for sweep, entries in yaml.safe_load(text).items()
    }
