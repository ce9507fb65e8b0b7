"""The figure of trajectories in the plane: its axes and their ticks."""

from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis

from nodebench.report.figures.trajectories import paths_figure
from tests.support.figures import rendered_figures

LONG = "three-minima sigmoid linear weight_decay 0.0001 steps 64"


def panels(*states: tuple[float, float], cell: str = "euler 2") -> list[Axes]:
    """The two panels of a cell whose paths go through these states."""
    paths = pd.DataFrame({"under": ["own", "limit"], "class": [0, 1], "states": [states] * 2})
    with pytest.MonkeyPatch.context() as patch:
        saved = []
        patch.setattr("nodebench.report.figures.trajectories.save", lambda f, _: saved.append(f))
        paths_figure({cell: paths}, pd.DataFrame(), Path())
    plt.close(saved[0])
    return list(saved[0].axes)


@pytest.mark.parametrize(
    ("states", "scales"),
    [
        ([(0.1, 0.2), (0.3, -0.46)], ("linear", "linear")),
        ([(0.1, 0.2), (0.3, -19)], ("linear", "linear")),
        ([(0.1, 0.2), (0.3, -50)], ("linear", "symlog")),
        ([(0.1, 0.2), (1e5, -5)], ("symlog", "symlog")),
        ([(3000, 0.2), (3020, -50)], ("linear", "symlog")),
    ],
)
def test_an_axis_is_logarithmic_only_if_states_are_large_and_it_reaches_beyond_one(states, scales):
    for axes in panels(*states):
        assert (axes.get_xscale(), axes.get_yscale()) == scales


@pytest.mark.parametrize(
    "states", [[(0.460572, 0.1), (0.460581, 0.4)], [(0.1, 0.2), (1e5, 0.20001)]]
)
def test_numbers_of_axes_do_not_overlap_where_states_are_close_together(states):
    axes, _ = panels(*states)
    with rendered_figures():
        axes.figure.draw_without_rendering()
        for axis in (axes.xaxis, axes.yaxis):
            texts = drawn_texts(axis)
            assert 2 <= len(texts) <= 9
            for before, after in pairwise(texts):
                assert not before.overlaps(after)


def drawn_texts(axis: Axis) -> list:
    """The boxes of the numbers inside an axis, in order."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [tick.label1.get_window_extent() for tick in ticks]


def test_a_long_label_is_wrapped_above_its_panel():
    titles = [axes.get_title() for axes in panels((0, 0), (1, 1), cell=LONG)]
    assert [title.splitlines()[-1] for title in titles] == ["training solver", "limit"]
    assert max(len(line) for title in titles for line in title.splitlines()) <= 28
