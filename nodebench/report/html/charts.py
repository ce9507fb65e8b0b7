"""The charts of report.html: what each can show, and how Vega-Lite draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nodebench.report.html.measures import AxisChoice

Spec = dict[str, Any]
"""A part of a Vega-Lite specification. The page fills in axes, colours, tooltips and values."""

Y, LOW = ({"field": name, "type": "quantitative"} for name in ("y", "low"))
HIGH: Spec = {"field": "high"}
NEAREST: Spec = {
    "name": "nearest",
    "select": {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"},
}
IF_NEAREST_OR_ALONE: Spec = {
    "condition": [
        {"param": "nearest", "empty": False, "value": 1},
        {"test": "datum.points === 1", "value": 1},
    ],
    "value": 0,
}
BY_METHOD: Spec = {"field": "method", "type": "nominal", "title": "test solver"}
LEGEND_BELOW: Spec = {"orient": "bottom", "columns": 3}

POINTS: list[Spec] = [
    {"mark": {"type": "rule", "clip": True}, "encoding": {"y": LOW, "y2": HIGH}},
    {
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 0.9, "cursor": "pointer"},
        "encoding": {"y": Y},
    },
]
"""A point for each row, with its interval if it has one."""

ACROSS: list[Spec] = [
    {
        "mark": {"type": "rule", "strokeDash": [6, 4], "strokeWidth": 1.5, "cursor": "pointer"},
        "encoding": {"x": {"value": 0}, "x2": {"value": "width"}, "y": Y},
    },
]
"""A line over all x for each row that has no value on that axis."""

LINE = ("cell", "trial_id")
"""What a line belongs to: a configuration, or one of its trials."""

OF_ONE: Spec = {"detail": [{"field": name} for name in LINE]}
COUNTED: Spec = {"joinaggregate": [{"op": "count", "as": "points"}], "groupby": [*LINE]}
"""Counts the points of each line: one of a single point is invisible."""

LINES_BY_EPOCH: list[Spec] = [
    {
        "mark": {"type": "area", "opacity": 0.15, "clip": True},
        "encoding": {"y": LOW, "y2": HIGH, **OF_ONE},
    },
    {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": {"y": Y, **OF_ONE}},
    {
        "transform": [COUNTED],
        "mark": {"type": "point", "filled": True, "cursor": "pointer"},
        "params": [NEAREST],
        "encoding": {"y": Y, "opacity": IF_NEAREST_OR_ALONE},
    },
]
"""A line for each configuration with a band for its intervals, or a line for each trial."""

LINES_BY_SOLVER: list[Spec] = [
    {
        "mark": {"type": "line", "strokeWidth": 1.5},
        "encoding": {
            "y": Y,
            "detail": {"field": "cell"},
            "strokeDash": {**BY_METHOD, "legend": LEGEND_BELOW},
        },
    },
    *POINTS[:1],
    {
        "mark": {"type": "point", "filled": True, "size": 45, "cursor": "pointer"},
        "encoding": {"y": Y, "shape": {**BY_METHOD, "legend": LEGEND_BELOW}},
    },
    {
        "transform": [{"filter": "datum.own"}],
        "mark": {"type": "point", "size": 180, "color": "currentColor", "strokeWidth": 1.5},
        "encoding": {"y": Y, "color": {"value": "currentColor"}},
    },
]
"""A line for each series and test solver; a circle marks the training solver."""

CHART = "chart:"
"""The prefix of image addresses that stand for a chart."""

MOST_SHOWN = 12
"""The most series of a data set that are switched on initially."""

DATA_SETS = {"data.name": "data set"}
"""The filter by data sets, of which one is on initially: metrics on others do not compare."""


@dataclass(frozen=True)
class Chart:
    """A chart: its rows, its selectable axes and series, and its layers.

    The first axes and series are selected initially. `singles` names the table with the rows of
    single trials, if the chart can show them instead of means. `without_x` are the layers for rows
    without a value on the x axis, which are otherwise left out. `filters` are
    columns whose values can be switched off like series. `figures` are the static figures that show
    the same.
    """

    name: str
    title: str
    note: str
    rows: str
    x: Sequence[AxisChoice]
    y: Sequence[AxisChoice]
    series: Mapping[str, str]
    layers: Sequence[Spec]
    singles: str = ""
    without_x: Sequence[Spec] = ()
    filters: Mapping[str, str] = field(default_factory=dict)
    figures: Sequence[str] = ()

    @property
    def is_drawn(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.x and self.y)

    def described(self) -> dict[str, object]:
        """The chart as the page's script reads it."""
        return {
            "title": self.title,
            "note": self.note,
            "rows": self.rows,
            "x": [axis.described() for axis in self.x],
            "y": [axis.described() for axis in self.y],
            "series": dict(self.series),
            "filters": dict(self.filters),
            "layers": [*self.layers],
            "singles": self.singles,
            "without_x": [*self.without_x],
        }
