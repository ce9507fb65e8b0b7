"""How figures look, and how they are saved."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from nodebench.report.analysis.statistics import is_share

ON_LOG_AXES = ("test_error",)


def configure() -> None:
    """Configures matplotlib to write files, with the same bytes for the same figure."""
    mpl.use("agg")
    sns.set_theme(context="paper", style="whitegrid", palette="colorblind", font_scale=1.1)
    mpl.rcParams.update({"svg.hashsalt": "nodebench", "svg.fonttype": "path", "figure.dpi": 150})


LONGEST_LINE = 28
"""Characters per line of a panel's title."""


def in_percent(axes: Axes, metric: str) -> None:
    """Numbers a vertical axis of accuracies in percent, as tables do."""
    if is_share(metric):
        axes.yaxis.set_major_formatter(_Percent())


class _Percent(ScalarFormatter):
    """Shares in percent, all with as many decimals as their distances need."""

    def __init__(self) -> None:
        super().__init__(useOffset=False)
        self.set_scientific(False)

    def set_locs(self, locs: Any) -> None:
        """Chooses the decimals for the ticks at `locs`."""
        super().set_locs([100 * share for share in locs])

    def __call__(self, x: float, pos: int | None = None) -> str:
        return super().__call__(100 * x, pos)


MANY_TIMES = 100
"""An axis that spans more than this factor has room only for powers of ten."""


def log_ticks(axes: Axes, values: pd.Series[float]) -> None:
    """A logarithmic horizontal axis of plain numbers, as many as have room."""
    axes.set_xscale("log")
    is_wide = values.max() > MANY_TIMES * values.min()
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if is_wide else (1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


FORMATS = {"svg": "Date", "png": "Software"}
"""The suffixes of a figure's files -> the metadata that would differ each time."""


Color = tuple[float, float, float]

DISTINCT = 10
"""The colours of the palette that the colour-blind can distinguish."""


def colors_of(names: Iterable[str]) -> dict[str, Color]:
    """A colour for each name, the same in every figure and chart that shows the same names."""
    distinct = list(dict.fromkeys(names))
    palette = sns.color_palette(
        "colorblind" if len(distinct) <= DISTINCT else "husl", len(distinct)
    )
    return dict(zip(distinct, palette, strict=True))


def hex_colors(names: Iterable[str]) -> dict[str, str]:
    """The same colours as a web page has them."""
    return {name: to_hex(color) for name, color in colors_of(names).items()}


class Drawn(NamedTuple):
    """Figures that were saved together, by their files' names without endings.

    `note` says how to read them, and `caption` is the heading of a figure that has its own.
    """

    names: list[str]
    note: str = ""
    caption: str = ""


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as SVG and PNG into one folder; the layout is computed once for both."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.draw_without_rendering()
    figure.set_layout_engine(None)
    box = figure.get_tightbbox().padded(mpl.rcParams["savefig.pad_inches"])
    for ending, unwanted in FORMATS.items():
        file = path.with_name(f"{path.name}.{ending}")
        figure.savefig(file, metadata={unwanted: None}, bbox_inches=box)
    plt.close(figure)


def discard(path: Path) -> None:
    """Removes a figure that `save` wrote."""
    for ending in FORMATS:
        path.with_name(f"{path.name}.{ending}").unlink(missing_ok=True)


def close() -> None:
    """Discards unfinished figures."""
    plt.close("all")


def in_lines(title: str) -> str:
    """A panel's title, wrapped so that it does not reach the next panel."""
    return "\n".join(textwrap.wrap(title, LONGEST_LINE))
