"""Tests of what a report shows of evaluated points: verdicts, gradients, figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nodebench.report import notes, solver_tables
from nodebench.report.analysis import frames
from nodebench.report.analysis.findings import Findings
from nodebench.report.figures.curves import adaptation_figure
from nodebench.report.figures.solvers import (
    robustness_figures,
    some_cells,
    some_cells_note,
    steps_figure,
)
from nodebench.report.figures.style import Drawn
from nodebench.report.page import write_report_folder
from nodebench.report.result_tables import result_tables
from nodebench.store import Result, Store
from nodebench.sweep import Sweep
from nodebench.training.trial import run_trial
from tests.support.coarse_reference import coarse_reference
from tests.support.figures import helpers, rendered_figures
from tests.support.tiny_sweeps import TINY, options, point, tiny

OWN = {"method": "euler", "step_factor": 1.0, "nfe": 2.0}
LIMIT = {"method": "rk4", "steps": 128, "nfe": 512.0}
BLOCK = {"methods": ["euler"], "steps": [4]}
GRADIENTS = {"methods": ["euler"], "steps": [2], "gradients": ["backprop", "adjoint"]}


def evaluated(folder: Path, *values: tuple[float | str, float | str], **fields: Any) -> tuple:
    """A sweep whose trials have made-up accuracies under their own solver and at the limit."""
    sweep = tiny(folder, **{"evaluate": BLOCK, **fields})
    store = Store(folder / "runs")
    for trial, (own, limit) in zip(sweep.trials, values, strict=True):
        store.folder(trial.id).write_evaluations([point(own, **OWN), point(limit, **LIMIT)])
        summary = {"test_accuracy": own, "parameters": 71, "chance": 0.5}
        result = Result("finished", "", 3, summary, [], 1.0, 2.0)
        store.folder(trial.id).write_result(result)
    return sweep, store


def test_verdicts_are_in_the_main_table_and_behind_them_their_numbers(tmp_path: Path) -> None:
    values = (0.9, 0.9), (0.8, 0.8), (0.9, 0.6), (0.9, 0.9), (0.9, 0.7), (0.8, 0.6)
    grid = {"model.width": [4, 8, 16]}
    sweep, store = evaluated(tmp_path, *values, seeds=[0, 1], grid=grid)
    judged = frames.verdict_frame(sweep, store)
    main = result_tables(sweep, frames.result_frame(sweep, store), judged, pd.DataFrame()).main
    assert list(main["ODE?"]) == ["yes", "1 of 2", "no"]
    assert list(main["drop %"]) == ["0.00 (all equal)", "15.00 (0.00, 30.00)", "20.00 (all equal)"]
    table = solver_tables.verdicts_table(sweep, judged)
    words = ["ODE", "1 ResNet in disguise, 1 ODE", "ResNet in disguise"]
    assert list(table["verdict"]) == words
    both = "85.00 (80.00, 90.00)"
    assert list(table["own solver %"]) == [both, "90.00 (all equal)", both]
    assert list(table["limit %"]) == [both, "75.00 (60.00, 90.00)", "65.00 (60.00, 70.00)"]
    assert "why undecided" not in table


def test_undecided_verdict_says_why(tmp_path: Path) -> None:
    values = (0.505, 0.5), (0.9, "diverged")
    sweep, store = evaluated(tmp_path, *values, seeds=[0, 1])
    table = solver_tables.verdicts_table(sweep, frames.verdict_frame(sweep, store))
    assert list(table["verdict"]) == ["undecided"]
    assert list(table["why undecided"]) == ["at the limit: diverged; no better than chance, 0.5"]


def test_the_margin_is_the_sweeps(tmp_path: Path) -> None:
    sweep, store = evaluated(tmp_path, (0.9, 0.8))
    assert list(frames.verdict_frame(sweep, store)["verdict"]) == ["ResNet in disguise"]
    lenient = replace(sweep, file=sweep.file.model_copy(update={"margin": 0.2}))
    assert list(frames.verdict_frame(lenient, store)["verdict"]) == ["ODE"]
    page = write_report_folder(lenient, store, tmp_path / "report").page.read_text()
    assert "The margin is 20 percentage points." in page


def test_the_training_solver_and_the_limit_are_columns_only_where_they_are_asked_for(
    tmp_path: Path,
) -> None:
    sweep, store = evaluated(tmp_path, (0.9, 0.8))
    known = store.folder(sweep.trials[0].id)
    known.write_evaluations([*known.evaluations(), point(0.7, method="euler", steps=4)])
    table = solver_tables.robustness_table(frames.evaluation_frame(sweep, store))
    assert list(table.columns) == ["configuration", "test solver", "n", "NFE 4"]


# ----------------------------------------------------------------------------- trained, measured


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Store]:
    """Three solvers, two seeds, evaluated by factors, with gradients."""
    folder = tmp_path_factory.mktemp("measured")
    block = {"methods": ["euler", "rk4"], "step_factors": [0.5, 1]}
    once = {**GRADIENTS, "when": {"solver.steps": 2}}
    sweep = tiny(folder, grid={"solver.steps": [1, 2, 4]}, seeds=[0, 1], evaluate=[block, once])
    store = Store(folder / "runs")
    with coarse_reference(grows=True):
        for trial in sweep.trials:
            run_trial(trial, store, options(sweep, folder))
    return sweep, store


def test_gradients_are_a_table(measured: tuple[Sweep, Store]) -> None:
    sweep, store = measured
    table = solver_tables.gradients_table(frames.gradient_frame(sweep, store))
    assert list(table["weights at"]) == ["start", "end"] * 2
    assert list(table["gradient"]) == ["backprop", "backprop", "adjoint", "adjoint"]
    assert list(table["budget"]) == ["NFE 2"] * 4
    assert list(table["NFE backward"]) == ["0", "0", "2", "2"]
    assert set(table["n"]) == {"2"}
    start = table[(table["gradient"] == "backprop") & (table["weights at"] == "start")]
    errors = [
        row["gradient_error"]
        for trial in sweep.trials
        for row in store.folder(trial.id).evaluations()
        if row["point"].get("gradient") == "backprop" and row["point"].get("at") == "start"
    ]
    assert list(start["error of dL/dθ"]) == [f"{sum(errors) / 2:.1e}"]


@pytest.fixture(scope="module")
def report(measured: tuple[Sweep, Store], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of their report, with figures as users have them."""
    with rendered_figures():
        return write_report_folder(*measured, tmp_path_factory.mktemp("report")).page.parent


def drawings(report: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (report / "figures").glob("*.svg")}


def test_a_page_shows_every_figure_of_evaluated_models(report: Path) -> None:
    page = (report / "README.md").read_text()
    for name in ("paths", "robustness", "steps", "heat-map", "work-precision"):
        assert f"](figures/{name}.svg)" in page
        assert (report / "figures" / f"{name}.png").stat().st_size > 10_000
    assert "## Is it still an ODE?" in page
    assert "## Which gradient to trust" in page


def test_drawings_are_the_same_bytes_each_time_and_in_other_processes(
    report: Path, measured: tuple[Sweep, Store], tmp_path: Path
) -> None:
    with helpers(1), rendered_figures(".svg"):
        again = write_report_folder(*measured, tmp_path).page.parent
    assert drawings(again) == drawings(report)


def test_the_html_page_stays_small(report: Path) -> None:
    assert (report / "report.html").stat().st_size < 1024 * 1024


@pytest.mark.usefixtures("rendered_figures")
def test_steps_are_drawn_only_where_nothing_but_the_solver_varies(
    measured: tuple[Sweep, Store], tmp_path: Path
) -> None:
    sweep, store = measured
    curves = frames.robustness_curves(frames.evaluation_frame(sweep, store))
    assert steps_figure(sweep, curves, tmp_path) == [Drawn(["steps"], notes.STEPS_FIGURE)]
    widths = tiny(tmp_path, grid={"model.width": [4, 8]})
    assert steps_figure(widths, curves, tmp_path) == []


def test_an_error_bar_of_accuracies_ends_at_100_percent(tmp_path: Path) -> None:
    values = (0.9, 0.8), (0.98, 0.9), (0.94, 0.85)
    sweep, store = evaluated(tmp_path, *values, seeds=[0, 1, 2])
    curves = frames.robustness_curves(frames.evaluation_frame(sweep, store))
    with pytest.MonkeyPatch.context() as patch:
        saved: list[Any] = []
        patch.setattr("nodebench.report.figures.solvers.save", lambda *given: saved.append(given))
        robustness_figures(sweep, curves, tmp_path)
    [(figure, _)] = saved
    bars = [bar for drawn in figure.axes[0].containers for bar in drawn.lines[2][0].get_segments()]
    ends = [bar[:, 1].tolist() for bar in bars]
    assert ends == [
        pytest.approx([0.94 - 4.3027 * 0.04 / 3**0.5, 1], abs=1e-4),
        pytest.approx([0.85 - 4.3027 * 0.05 / 3**0.5, 0.85 + 4.3027 * 0.05 / 3**0.5], abs=1e-4),
    ]


def test_some_cells_stand_for_all_by_their_drops() -> None:
    drops = {"a": 0.1, "b": 0.5, "c": -0.1, "d": 0.3, "e": 0.2}
    judged = pd.DataFrame({"cell": drops.keys(), "drop": drops.values()})
    assert some_cells(list(drops), judged) == ["b", "e", "c"]
    assert some_cells(["a", "b"], judged) == ["b", "a"]
    assert some_cells(["unjudged", "a", "b"], judged) == ["b", "a", "unjudged"]
    assert some_cells(["a", "b"], pd.DataFrame()) == ["a", "b"]


def test_a_figure_of_some_cells_says_of_how_many_and_which(tmp_path: Path) -> None:
    values = [(0.9, 0.9 - drop) for drop in (0.1, 0.4, 0.0, 0.2)]
    grid = {"model.width": [4, 8, 16, 32]}
    sweep, store = evaluated(tmp_path, *values, grid=grid)
    for trial, (own, limit) in zip(sweep.trials, values, strict=True):
        rows = [point(own, **OWN, solver_error=0.1), point(limit, **LIMIT, solver_error=0.01)]
        store.folder(trial.id).write_evaluations(rows)
    page = write_report_folder(sweep, store, tmp_path / "report").page.read_text()
    caption = page.partition("](figures/work-precision.svg)")[2].partition("![")[0]
    assert "Shown: 3 of 4 configurations, evenly spaced by rank of their drops" in caption
    assert some_cells_note(["a", "b", "c"]) == ""


@pytest.mark.usefixtures("coarse_reference")
def test_adaptation_is_drawn_where_there_is_any(tmp_path: Path) -> None:
    solvers = [{"method": "euler", "adapt": {"every": 2}}, {"method": "dopri5", "adapt": {}}]
    sweep = tiny(tmp_path, base=TINY, grid={"solver": solvers})
    store = Store(tmp_path / "runs")
    for trial in sweep.trials:
        run_trial(trial, store, options(sweep, tmp_path))
    page = write_report_folder(sweep, store, tmp_path / "report").page.read_text()
    assert "](figures/adaptation.svg)" in page
    with rendered_figures():
        drawn = adaptation_figure(sweep, Findings(sweep, store).epochs, tmp_path)
    assert drawn == [Drawn(["adaptation"], notes.of_seeds(notes.ADAPTATION, 1))]
    assert (tmp_path / "adaptation.png").stat().st_size > 10_000


@pytest.mark.usefixtures("coarse_reference")
def test_paths_are_kept_of_states_in_the_plane(measured: tuple[Sweep, Store]) -> None:
    sweep, store = measured
    rows = store.folder(sweep.trials[-1].id).trajectories()
    assert [row["under"] for row in rows] == ["own"] * 12 + ["limit"] * 12
    own, limit = rows[0], rows[12]
    assert own["t"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert len(limit["t"]) == len(limit["states"]) == 65
    assert own["states"][0] == limit["states"][0]
    assert len(own["states"][0]) == 2
    assert sorted({row["class"] for row in rows}) == [0, 1]
    solid = tiny(store.root, base={**TINY, "data": {**TINY["data"], "dim": 3}})
    run_trial(solid.trials[0], store, options(solid, store.root))
    assert store.folder(solid.trials[0].id).trajectories() == []
