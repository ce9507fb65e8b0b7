"""Reports of more configurations than a legend can name."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from nodebench.report.analysis import frames
from nodebench.report.figures.curves import MOST_LEGEND_ENTRIES, _layout, epoch_figures
from nodebench.report.figures.pareto import pareto_figure
from nodebench.report.figures.solvers import robustness_figures, robustness_groups
from nodebench.report.page import write_report_folder
from nodebench.store import Result, Store
from nodebench.sweep import Sweep
from tests.support.figures import rendered_figures
from tests.support.tiny_sweeps import tiny

WIDTHS = list(range(4, 4 + MOST_LEGEND_ENTRIES + 4))


@pytest.fixture
def many(tmp_path: Path) -> tuple[Sweep, Store]:
    """Wider networks are better, at the end of two epochs."""
    sweep, store = tiny(tmp_path, grid={"model.width": WIDTHS}), Store(tmp_path / "runs")
    for trial in sweep.trials:
        end = trial.spec.model.width / 100
        rows = [{"epoch": 1, "test_accuracy": 0.9 - end}, {"epoch": 2, "test_accuracy": end}]
        store.folder(trial.id).create(trial)
        store.folder(trial.id).write_history(rows)
        summary = {"test_accuracy": end, "nfe_forward": float(trial.spec.model.width)}
        store.folder(trial.id).write_result(Result("finished", "", 2, summary, [], 0.0, 1.0))
    return sweep, store


def test_the_lines_that_end_best_are_named(many: tuple[Sweep, Store]) -> None:
    sweep, store = many
    named = _layout(sweep, frames.epoch_frame(sweep, store)).colors
    assert list(named) == [f"width {width}" for width in WIDTHS[-MOST_LEGEND_ENTRIES:]]


def test_every_figure_of_many_configurations_is_drawn(
    many: tuple[Sweep, Store], tmp_path: Path
) -> None:
    sweep, store = many
    with rendered_figures(".svg"):
        report = write_report_folder(sweep, store, tmp_path / "report")
    assert report.undrawn == []
    drawn = {path.stem for path in (tmp_path / "report" / "figures").iterdir()}
    assert drawn == {"accuracy", "frontier"}
    note = (
        f"There are more than {MOST_LEGEND_ENTRIES} lines: those with the best final values are col"
    )
    assert note in report.page.read_text(encoding="utf-8")


def test_a_few_of_many_robustness_figures_are_drawn(tmp_path: Path) -> None:
    sweep = tiny(tmp_path, grid={"model.width": list(range(4, 12)), "solver.steps": [*range(1, 8)]})
    cells = [sweep.cell_label(trial) for trial in sweep.trials]
    points = {"nfe": 8.0, "value": 0.5, "method": "euler", "spread": 0.1, "trained_nfe": 2.0}
    curves = pd.DataFrame([{"cell": cell, **points} for cell in cells])
    groups = robustness_groups(sweep, curves)
    assert [len(group) for group in groups.values()] == [7] * 8
    [drawn] = robustness_figures(sweep, curves, tmp_path)
    assert drawn.names == [f"robustness-{width}" for width in (4, 6, 9, 11)]
    assert "Shown: 4 of 8 figures" in drawn.note
    assert robustness_groups(sweep, curves[:48]) == {"robustness": cells[:48]}


def test_a_metric_that_only_the_worst_have_is_drawn(many: tuple[Sweep, Store]) -> None:
    sweep, store = many
    epochs = frames.epoch_frame(sweep, store)
    is_worst = epochs["model.width"].isin(WIDTHS[:2])
    epochs["nfe_forward"] = epochs["epoch"].where(is_worst).astype(float)
    for few in (epochs, pd.concat([epochs, epochs.assign(epoch=epochs["epoch"] + 7)])):
        drawn = epoch_figures(sweep, few, store.root / "few")
        assert {"accuracy", "nfe_forward"} <= {name for each in drawn for name in each.names}


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_each_configuration_has_its_own_color_beside_its_cost(
    count: int, many: tuple[Sweep, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Matplotlib takes three or four numbers for one color."""
    saved = []
    monkeypatch.setattr("nodebench.report.figures.pareto.save", lambda *given: saved.append(given))
    numbers = {"value": 0.5, "low": 0.4, "high": 0.6, "seconds": float("nan"), "nfe": 2.0}
    table = pd.DataFrame([{"cell": f"cell {i}", "data": "d", **numbers} for i in range(count)])
    table.loc[count] = {"cell": "resnet", "data": "d", **numbers, "nfe": float("nan")}
    table = table.assign(front_seconds=False, front_nfe=[True] + [False] * count, measured="")
    [drawn] = pareto_figure(many[0], table, tmp_path)
    assert drawn.names == ["frontier"]
    figure, _ = saved[0]
    dots = figure.axes[0].collections[-1]
    faces, edges = (map(tuple, each) for each in (dots.get_facecolors(), dots.get_edgecolors()))
    assert len({*faces}) == count
    assert [edge == (0, 0, 0, 1) for edge in edges] == [True] + [False] * (count - 1)
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == [f"cell {i}" for i in range(count)]


def test_fronts_of_many_configurations_have_colors_and_names(many, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr("nodebench.report.figures.pareto.save", lambda *given: saved.append(given))
    count = MOST_LEGEND_ENTRIES + 4
    table = pd.DataFrame(
        {
            "cell": [f"cell {i}" for i in range(count)],
            "data": "d",
            "value": 0.5,
            "low": 0.4,
            "high": 0.6,
            "seconds": 1.0,
            "nfe": 2.0,
            "front_seconds": False,
            "front_nfe": [i in (3, 5) for i in range(count)],
            "measured": "",
        }
    )
    [drawn] = pareto_figure(many[0], table, tmp_path)
    assert "those on a front are coloured" in drawn.note
    figure, _ = saved[0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cell 3", "cell 5"]
    faces = [tuple(face) for face in figure.axes[0].collections[-1].get_facecolors()]
    assert len({*faces}) == 3 and faces[3] != faces[5]
    assert not figure.axes[1].texts  # names next to points would overlap
