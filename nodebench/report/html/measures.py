"""The choices for the axes of a chart: measures and settings, with their titles and formats."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from nodebench.report.analysis.columns import TIMED_SECONDS
from nodebench.report.analysis.statistics import ANY, is_share, possible_values
from nodebench.sweep import Sweep

AXIS_TITLES: Mapping[str, str] = {
    "test_accuracy": "test accuracy",
    "test_error": "test error",
    "value": "test metric",
    "drop": "drop under a finer solver",
    "limit": "at the limit",
    "own": "under its own solver",
    "nfe_forward": "NFE forward",
    "nfe_backward": "NFE backward",
    "nfe_forward_mean": "NFE forward, mean over training",
    "nfe": "NFE per forward pass",
    "steps": "steps",
    TIMED_SECONDS: "seconds per epoch",
    "epoch_s": "seconds per epoch, during training",
    "forward_s": "seconds per forward pass",
    "trained_s": "seconds of training and tests",
    "so_far_s": "seconds of training so far",
    "parameters": "parameters",
    "train_loss": "training loss",
    "train_accuracy": "training accuracy",
    "test_loss": "test loss",
    "best_test_accuracy": "test accuracy of the best epoch",
    "best_test_error": "test error of the best epoch",
    "val_accuracy": "validation accuracy",
    "solver_error": "relative error of the solver",
    "step_memory_bytes": "bytes per training step",
    "peak_memory_bytes": "bytes of memory at the peak",
    "sufficient_steps": "sufficient steps",
    "order": "observed order of convergence",
    "error": "relative error of dL/dθ",
    "state_error": "relative error of dL/dy(0)",
    "memory": "bytes of memory",
    "seconds": "seconds",
    "epoch": "epoch",
    "iteration": "iteration",
    "seed": "seed",
}
"""Column -> its title on an axis, in the order in which axes are offered. Other columns follow."""

IN_TIME = ("epoch", "iteration", "so_far_s")
"""Columns that measure the progress of training; their axes are linear."""

TIMES = ("started", "finished")
"""Columns of points in time, in seconds since 1970."""

NOT_MEASURED = frozenset(
    {*TIMES, "environments", "threads", "packed", "chance", "time", "at_step_limit"}
)
"""Columns of numbers that are not worth comparing."""

LARGE = 1e5
"""If an axis reaches beyond this, its numbers are abbreviated, such as 120k."""

SEVERAL_TIMES = 20
"""An axis whose values span more than this factor is logarithmic initially."""


@dataclass(frozen=True)
class AxisChoice:
    """A column that an axis may show."""

    field: str
    title: str
    is_number: bool
    format: str
    """In d3's notation; empty for d3's own choice. Tooltips have more digits."""

    least: float | None = None
    most: float | None = None
    """The lowest and the highest possible value, where the axis and its intervals end."""

    is_log: bool = False
    """Whether its axis is logarithmic initially."""

    is_whole: bool = False
    """Whether its values are whole numbers, like epochs."""

    def described(self) -> dict[str, object]:
        """The axis as the page's script reads it."""
        return asdict(self)


def axes(
    frame: pd.DataFrame, sweep: Sweep, names: Iterable[str] | None = None, always: str = ""
) -> list[AxisChoice]:
    """The columns of a frame that can be an axis: `names`, or all measures and settings.

    A column with only one value is left out, unless it is the one that is `always` offered.
    """
    settings = {path: heading for path, heading in sweep.headings.items() if path in frame}
    if names is None:
        constant = {path for trial in sweep.trials for path in trial.settings}
        others = sorted(
            set(map(str, frame)) - constant - NOT_MEASURED - set(AXIS_TITLES) - {"cell", "trial_id"}
        )
        names = [*AXIS_TITLES, *(name for name in others if _is_number(frame[name])), *settings]
    found = [
        name for name in names if name in frame and (name in settings or _is_number(frame[name]))
    ]
    told = [name for name in found if name == always or frame[name].nunique() > 1]
    ordered = sorted(told, key=lambda name: name != always)
    titles = settings | dict(AXIS_TITLES)
    return [_axis(frame[name], titles.get(name, name.replace("_", " ")), sweep) for name in ordered]


def _axis(values: pd.Series[float], title: str, sweep: Sweep) -> AxisChoice:
    name, known = str(values.name), values.dropna()
    if not _is_number(values):
        return AxisChoice(name, title, is_number=False, format="")
    low, high = float(known.min()), float(known.max())
    in_percent = is_share(name, sweep.metric)
    is_log = 0 < SEVERAL_TIMES * low < high and not in_percent and name not in IN_TIME
    title = title.replace("test metric", f"test {sweep.metric}")
    form = ".2~%" if in_percent else ".3~s" if high > LARGE else ""
    is_whole = bool((known.astype(float) % 1 == 0).all())
    possible = possible_values(name, sweep.metric) if name in AXIS_TITLES else ANY
    least, most = (end if math.isfinite(end) else None for end in possible)
    return AxisChoice(name, title, True, form, least, most, is_log, is_whole)


def _is_number(values: pd.Series[float]) -> bool:
    """Whether a column has only numbers, apart from missing values."""
    known = values.dropna()
    if known.empty or is_bool_dtype(known):
        return False
    if is_numeric_dtype(known):
        return True
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)


def as_columns(frame: pd.DataFrame, digits: int | None = None) -> dict[str, list[object]]:
    """Column -> values for JSON: None for a missing value, text for an infinite one."""
    return {str(name): [_plain(v, digits) for v in frame[name].tolist()] for name in frame}


def _plain(value: object, digits: int | None) -> object:
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, float):
        if value in (float("inf"), float("-inf")):
            return str(value)
        value = float(f"{value:.{digits}g}") if digits else value
        return int(value) if digits and value.is_integer() else value
    return value if isinstance(value, str | int | bool) else str(value)


def as_json(value: object) -> str:
    """JSON without whitespace."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
