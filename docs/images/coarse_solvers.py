"""Draws the README's figure from `reports/spheres-solver/evaluations.csv`.

Run it from the project's root: `.venv/bin/python docs/images/coarse_solvers.py`.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")

from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[2]
TRAINED_WITH = (2, 8, 64, 256)
LIMIT_AT = 1500
"""Where the limit, which is another method's, has its place on the axis of Euler steps."""


def accuracies() -> pd.DataFrame:
    """Mean accuracy in percent by the steps of the training and of the test solver."""
    table = pd.read_csv(ROOT / "reports" / "spheres-solver" / "evaluations.csv")
    table = table[(table["solver.method"] == "euler") & (table["outcome"] == "finished")]
    is_limit = (table["test.method"] == "rk4") & (table["test.steps"] == 128)
    table = table[(table["test.method"] == "euler") | is_limit]
    # Steps of 3/4 and 1/4 are two steps too, and not those of the training.
    table = table[table["own"] | (table["steps"] != table["solver.steps"])]
    steps = table["steps"].where(~is_limit, LIMIT_AT)
    means = 100 * table["accuracy"].groupby([table["solver.steps"], steps]).mean()
    return means.rename("accuracy").reset_index()


def draw(table: pd.DataFrame, target: Path) -> None:
    """One curve per number of training steps, with a circle at it and a label beside it."""
    figure, axes = plt.subplots(figsize=(7, 3.6), dpi=150, layout="constrained")
    for color, steps in zip(mpl.colormaps["viridis"]([0.0, 0.3, 0.6, 0.85]), TRAINED_WITH, strict=True):
        curve = table[table["solver.steps"] == steps]
        finite, limit = curve[curve["steps"] < LIMIT_AT], curve[curve["steps"] == LIMIT_AT]
        axes.plot(finite["steps"], finite["accuracy"], "-", color=color)
        last = finite.iloc[[-1]]
        axes.plot([*last["steps"], LIMIT_AT], [*last["accuracy"], *limit["accuracy"]], ":", color=color)
        axes.plot(limit["steps"], limit["accuracy"], "s", color=color)
        own = finite[finite["steps"] == steps]
        axes.plot(own["steps"], own["accuracy"], "o", mfc="white", mec=color, mew=2, ms=9)
        axes.annotate(f"trained with\n{steps} steps" if steps == 2 else f"{steps} steps",
                      (steps, own["accuracy"].iloc[0]), (0, 9), textcoords="offset points",
                      ha="center", color=color)  # fmt: skip
    axes.axhline(50, color="0.8", lw=1, zorder=0)
    axes.annotate("chance", (1, 50), (2, 3), textcoords="offset points", color="0.5")
    ticks = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    axes.set_xscale("log")
    axes.set_xticks([*ticks, LIMIT_AT], [*map(str, ticks), "limit"])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.set(xlabel="Euler steps in testing, same weights", ylabel="test accuracy %", ylim=(42, 109))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, metadata={"Software": None})


if __name__ == "__main__":
    draw(accuracies(), Path(__file__).with_name("coarse-solvers.png"))
