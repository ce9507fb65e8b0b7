"""Figures, as SVG and PNG: the same data gives the same bytes."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nodebench.sweep import Sweep

CURVES = {
    "accuracy": ("test_accuracy", "test accuracy"),
    "loss": ("train_loss", "training loss"),
    "nfe_forward": ("nfe_forward", "evaluations per forward pass"),
    "nfe_backward": ("nfe_backward", "evaluations per backward pass"),
}
MOST_LINES = 10  # that a legend and a colour-blind reader can tell apart

sns.set_theme(context="paper", style="whitegrid", palette="colorblind", font_scale=1.1)
mpl.rcParams.update({"svg.hashsalt": "nodebench", "svg.fonttype": "path", "figure.dpi": 150})


def curves(sweep: Sweep, epochs: pd.DataFrame, folder: Path) -> dict[str, str]:
    """Draws every metric by epoch, a line a cell with a band over seeds; name -> caption."""
    captions: dict[str, str] = {}
    for name, (column, title) in CURVES.items():
        if column not in epochs or not epochs[column].fillna(0).any():
            continue
        save(_curve(sweep, epochs, column, title), folder / name)
        captions[name] = title[0].upper() + title[1:]
    return captions


def save(figure: Figure, path: Path) -> None:
    """Writes a figure beside each other as SVG and PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None}, bbox_inches="tight")
    figure.savefig(path.with_suffix(".png"), metadata={"Software": None}, bbox_inches="tight")
    plt.close(figure)


def _curve(sweep: Sweep, epochs: pd.DataFrame, column: str, title: str) -> Figure:
    """Lines by cell; where they are too many for one panel, a panel per value of one setting."""
    data = epochs.dropna(subset=[column])
    panel = _panel_setting(sweep, data)
    line = "line"
    if panel is None:
        data = data.assign(line=data["cell"])
    else:
        rest = [path for path in sweep.varying if path != panel]
        data = data.assign(line=data[rest].map(_word).agg(" ".join, axis=1).str.strip())
    many = data[line].nunique() > MOST_LINES
    grid = sns.relplot(
        data=data,
        x="epoch",
        y=column,
        hue=line,
        style=None if many else line,
        dashes=True,
        col=panel,
        col_wrap=min(3, data[panel].nunique()) if panel else None,
        kind="line",
        errorbar="sd" if data["seed"].nunique() > 1 else None,
        palette="husl" if many else sns.color_palette("colorblind", data[line].nunique()),
        height=3.2 if panel else 3.8,
        aspect=1.25 if panel else 1.6,
        facet_kws={"sharey": True},
    )
    grid.set_axis_labels("epoch", title)
    for axes in grid.axes.flat:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if grid.legend is not None:
        grid.legend.set_title("")
    figure: Figure = grid.figure
    return figure


def _panel_setting(sweep: Sweep, data: pd.DataFrame) -> str | None:
    """The setting with the fewest values, if one panel would hold too many lines."""
    if data["cell"].nunique() <= MOST_LINES:
        return None
    counts = {path: data[path].nunique(dropna=False) for path in sweep.varying}
    usable = [
        path for path, count in counts.items() if 2 <= count <= 6 and data[path].notna().all()
    ]
    return min(usable, key=counts.__getitem__, default=None)


def _word(value: object) -> str:
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
