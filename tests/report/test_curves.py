"""The figures by epoch: what shares a panel."""

from nodebench.report.analysis import frames
from nodebench.report.figures.curves import epoch_figures
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
