"""The figures by epoch: what shares a panel."""

import pytest

from nodebench.report.analysis import frames
from nodebench.report.figures.curves import MOST_LEGEND_ENTRIES, _layout, epoch_figures
from nodebench.store import Store
from tests.support.tiny_sweeps import TINY, tiny


def test_each_data_set_has_its_own_panel_and_scale_by_epoch(tmp_path, monkeypatch):
    data = [TINY["data"], {**TINY["data"], "name": "three-minima"}]
    sweep = tiny(tmp_path, grid={"data": data, "model.width": [4, 8]})
    store = Store(tmp_path / "runs")
    for trial in sweep.trials:
        start = 0.9 if trial.spec.data.name == "spheres" else 0.1
        rows = [{"epoch": e, "test_accuracy": start + e / 100} for e in (1, 2)]
        store.folder(trial.id).create(trial)
        store.folder(trial.id).write_history(rows)
    saved = []
    monkeypatch.setattr("nodebench.report.figures.curves.save", lambda *given: saved.append(given))
    [drawn] = epoch_figures(sweep, frames.epoch_frame(sweep, store), tmp_path)
    assert drawn.names == ["accuracy"]
    [(figure, _)] = saved
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert list(panels) == ["data = spheres", "data = three-minima"]
    limits = [axes.get_ylim() for axes in panels.values()]
    assert limits[0][0] > 0.85 and limits[1][1] < 0.15
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["width 4", "width 8"]


def test_a_band_ends_where_accuracies_do_and_epochs_are_whole(tmp_path, monkeypatch):
    sweep, store = tiny(tmp_path, seeds=[0, 1, 2]), Store(tmp_path / "runs")
    for trial in sweep.trials:
        rows = [{"epoch": e, "test_accuracy": 0.88 + 0.05 * trial.spec.seed} for e in (1, 2)]
        store.folder(trial.id).create(trial)
        store.folder(trial.id).write_history(rows)
    saved = []
    monkeypatch.setattr("nodebench.report.figures.curves.save", lambda *given: saved.append(given))
    epoch_figures(sweep, frames.epoch_frame(sweep, store), tmp_path)
    [axes] = saved[0][0].axes
    [band] = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (
        pytest.approx(0.93 - 4.3027 * 0.05 / 3**0.5, abs=1e-4),
        1,
    )
    assert axes.get_ylabel() == "test accuracy %"
    inside = [tick for tick in axes.get_xticks() if 1 <= tick <= 2]
    assert inside == [1, 2]


def test_the_best_lines_of_each_data_set_are_named(tmp_path):
    data = [TINY["data"], {**TINY["data"], "name": "three-minima"}]
    widths = list(range(4, 4 + MOST_LEGEND_ENTRIES))
    grid = [
        {"data": data[:1], "model.width": widths},
        {"data": data[1:], "model.width": [width + 100 for width in widths]},
    ]
    sweep, store = tiny(tmp_path, grid=grid), Store(tmp_path / "runs")
    for trial in sweep.trials:
        width = trial.spec.model.width  # the worst on spheres is better than all on the other
        accuracy = 0.5 + width / 100 if width < 100 else (width - 100) / 100
        store.folder(trial.id).create(trial)
        store.folder(trial.id).write_history([{"epoch": 1, "test_accuracy": accuracy}])
    named = _layout(sweep, frames.epoch_frame(sweep, store)).colors
    best = widths[-MOST_LEGEND_ENTRIES // 2 :]
    assert list(named) == [f"width {width}" for width in (*best, *(w + 100 for w in best))]


def test_a_line_of_a_single_point_among_long_ones_has_a_marker(tmp_path, monkeypatch):
    sweep, store = tiny(tmp_path, grid={"model.width": [4, 8]}), Store(tmp_path / "runs")
    for trial in sweep.trials:
        last = 2 if trial.spec.model.width == 4 else 10
        rows = [{"epoch": e, "test_accuracy": 0.5} for e in range(1, last)]
        store.folder(trial.id).create(trial)
        store.folder(trial.id).write_history(rows)
    saved = []
    monkeypatch.setattr("nodebench.report.figures.curves.save", lambda *given: saved.append(given))
    epoch_figures(sweep, frames.epoch_frame(sweep, store), tmp_path)
    lines = saved[0][0].axes[0].lines
    assert [len(line.get_xdata()) for line in lines if line.get_marker() == "o"] == [1]
