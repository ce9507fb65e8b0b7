"""Evaluated points, made up, as a report's tables and figures have them."""

import pandas as pd
import pytest

from nodebench.report import solver_tables
from nodebench.report.analysis import frames
from nodebench.report.analysis.formatting import mean_and_interval
from nodebench.report.page import write_report_folder
from nodebench.report.result_tables import result_tables
from nodebench.spec.solver import Solver
from nodebench.store import Store
from nodebench.training.trial import run_trial
from tests.support.tiny_sweeps import TINY, options, point, tiny

pytestmark = pytest.mark.usefixtures("coarse_reference")


def test_trained_weights_under_other_solvers_are_a_table(tmp_path):
    sweep = tiny(tmp_path, seeds=[0, 1], evaluate={"methods": ["euler", "rk4"], "nfe": [4, 6, 8]})
    store = Store(tmp_path / "runs")
    for trial in sweep.trials:
        run_trial(trial, store, options(sweep, tmp_path))
    frame = frames.evaluation_frame(sweep, store)
    table = solver_tables.robustness_table(frame)
    assert list(table.columns) == ["configuration", "test solver", "n", "NFE 4", "NFE 6", "NFE 8"]
    assert list(table["n"]) == ["2", "2"]
    assert list(table["test solver"]) == ["euler", "rk4"]
    # 6 evaluations do not divide by the four stages of rk4.
    assert table["NFE 6"][1] == "–"
    of_euler = frame[(frame["test.method"] == "euler") & (frame["test.steps"] == 4)]
    percent = of_euler["accuracy"] * 100
    assert table["NFE 4"][0] == mean_and_interval(percent, 2, possible=(0, 100))


EULER_4_8 = {"methods": ["euler"], "nfe": [4, 8]}


SPIRAL = {
    "data": {"name": "spiral", "windows": 4},
    "model": "neuralode",
    "solver": {"method": "rk4", "step_size": 0.5},
    "train": {"epochs": 2, "batch_size": 8},
}


def robustness(sweep, folder, *points_of_trials):
    """The table of made-up points: a list for each trial, in the plan's order."""
    store = Store(folder / "runs")
    for trial, found in zip(sweep.trials, points_of_trials, strict=False):
        store.folder(trial.id).write_evaluations(found)
    return solver_tables.robustness_table(frames.evaluation_frame(sweep, store))


def test_points_on_different_test_samples_are_not_averaged(tmp_path):
    blocks = [{"methods": ["euler"], "steps": [4]}]
    blocks.append({**blocks[0], "test_size": 20})
    sweep = tiny(tmp_path, evaluate=blocks)
    found = [point(0.5, method="euler", steps=4), point(0.9, method="euler", steps=4, test_size=20)]
    table = robustness(sweep, tmp_path, found)
    assert list(table["test_size"]) == ["all", "20"]
    assert list(table["NFE 4"]) == ["50.00", "90.00"]


def test_a_test_size_that_does_not_vary_is_not_shown(tmp_path):
    sweep = tiny(tmp_path, evaluate={"methods": ["euler"], "steps": [4], "test_size": 20})
    table = robustness(sweep, tmp_path, [point(0.9, method="euler", steps=4, test_size=20)])
    assert list(table.columns) == ["configuration", "test solver", "n", "NFE 4"]


def test_a_tolerance_and_the_multiple_that_means_it_count_once(tmp_path):
    block = {"methods": ["dopri5"], "tols": [1e-4], "tol_factors": [0.1]}
    solver = [{"method": "dopri5", "tol": 1e-3}]
    sweep = tiny(tmp_path, seeds=[0, 1], grid={"solver": solver}, evaluate=block)
    table = robustness(
        sweep,
        tmp_path,
        *(
            [
                point(a, method="dopri5", tol=1e-4),
                point(a, Solver(method="dopri5", tol=1e-3), method="dopri5", tol_factor=0.1),
            ]
            for a in (0.49, 0.51)
        ),
    )
    assert list(table.columns) == ["configuration", "test solver", "n", "tol 0.0001"]
    assert list(table["tol 0.0001"]) == ["50.00 (49.00, 51.00)"]
    assert list(table["n"]) == ["2"]


def test_points_that_the_sweep_does_not_ask_for_are_left_out(tmp_path):
    sweep = tiny(tmp_path, evaluate={"methods": ["euler"], "steps": [4]})
    others = [
        point(0.1, method="euler", steps=8),
        point(0.2, method="euler", steps=4, test_size=20),
        point(0.3, method="rk4", steps=4),
    ]
    table = robustness(sweep, tmp_path, [*others, point(0.9, method="euler", steps=4)])
    assert table.drop(columns="configuration").to_dict("records") == [
        {"test solver": "euler", "n": "1", "NFE 4": "90.00"}
    ]
    unasked = tiny(tmp_path)
    assert frames.evaluation_frame(unasked, Store(tmp_path / "runs")).empty


def test_a_mean_over_fewer_seeds_than_its_row_says_so(tmp_path):
    sweep = tiny(tmp_path, seeds=[0, 1, 2], evaluate={"methods": ["euler"], "steps": [2, 4]})
    both = [[point(a, method="euler", steps=n) for n in (2, 4)] for a in (0.4, 0.6)]
    half = [point(0.8, method="euler", steps=2), point("diverged", method="euler", steps=4)]
    table = robustness(sweep, tmp_path, *both, half)
    assert list(table["n"]) == ["3"]
    assert list(table["NFE 2"]) == ["60.00 [10.32, 100]"]
    assert list(table["NFE 4"]) == ["50.00 (40.00, 60.00) (2 of 3), 1 diverged"]


def test_a_configuration_that_was_not_evaluated_has_no_row(tmp_path):
    adaptive = [{"method": "dopri5", "tol": tol} for tol in (0.1, 0.01)]
    grid = {"solver": [{"method": "euler", "steps": 2}, *adaptive]}
    when = {"solver.method": "euler"}
    sweep = tiny(tmp_path, grid=grid, evaluate={"methods": ["euler"], "steps": [4], "when": when})
    assert "solver.tol" in sweep.varying
    table = robustness(sweep, tmp_path, [point(0.5, method="euler", steps=4)])
    assert list(table["configuration"]) == ["euler"]
    assert list(table["NFE 4"]) == ["50.00"]


def test_points_that_all_failed_still_have_their_budget(tmp_path):
    block = {"methods": ["euler", "implicit_adams"], "steps": [4], "step_factors": [0.6]}
    sweep = tiny(tmp_path, evaluate=block)
    found = [
        point("diverged", method="euler", step_factor=0.6),
        point("diverged", method="implicit_adams", steps=4),
    ]
    table = robustness(sweep, tmp_path, found)
    assert list(table["h × 0.6"]) == ["–, 1 diverged", "–"]
    assert list(table["steps 4"]) == ["–", "–, 1 diverged"]


def test_a_step_size_is_shown_as_a_multiple_of_the_training_step_size(tmp_path):
    grid = {"solver.steps": [2, 4]}
    sweep = tiny(tmp_path, grid=grid, evaluate={"methods": ["midpoint"], "step_factors": [0.5]})
    points = [[point(a, method="midpoint", step_factor=0.5)] for a in (0.5, 0.6)]
    table = robustness(sweep, tmp_path, *points)
    assert list(table["h × 0.5"]) == ["50.00", "60.00"]


def test_the_headings_of_budgets_are_explained(tmp_path):
    grid, blocks = {"solver.steps": [2, 4]}, {"methods": ["midpoint"], "step_factors": [0.5]}
    sweep = tiny(tmp_path, grid=grid, evaluate=blocks)
    store = Store(tmp_path / "runs")
    for trial in sweep.trials:
        store.folder(trial.id).write_evaluations([point(0.5, method="midpoint", step_factor=0.5)])
    text = solver_tables.budgets_text(frames.evaluation_frame(sweep, store))
    assert text == "`h × 1` is the training step size and `h × 0.5` half of it."
    budgets = pd.DataFrame({"budget": ["NFE 32", "steps 8", "tol 0.001", "tol × 0.1"]})
    told = solver_tables.budgets_text(budgets)
    assert told.startswith("`NFE 32` allows 32 evaluations per forward pass; `tol × 0.1` is")
    assert solver_tables.budgets_text(budgets[1:3]) == ""


def test_robustness_is_drawn_over_evaluations_from_those_of_training(tmp_path):
    sweep = tiny(tmp_path, grid={"solver.steps": [2, 4]}, seeds=[0, 1], evaluate=EULER_4_8)
    store = Store(tmp_path / "runs")
    for trial in sweep.trials:
        run_trial(trial, store, options(sweep, tmp_path))
    evaluated = frames.evaluation_frame(sweep, store)
    curves = frames.robustness_curves(evaluated)
    # The training solver's, the limit's, those asked for; Euler 4 is both the first and the last.
    assert list(curves["cell"]) == ["steps 2"] * 4 + ["steps 4"] * 3
    assert list(curves["trained_nfe"]) == [2] * 4 + [4] * 3
    assert list(curves["nfe"]) == [2, 512, 4, 8, 4, 512, 8]
    assert list(curves["own"]) == [True, False, False, False, True, False, False]
    found = evaluated[(evaluated["cell"] == "steps 2") & (evaluated["nfe"] == 4)]["accuracy"]
    assert curves["value"][2] == pytest.approx(found.mean())
    assert curves["spread"][2] == pytest.approx((found.max() - found.min()) / 2)
    text = write_report_folder(sweep, store, tmp_path / "report").page.read_text()
    assert "](figures/robustness.svg)" in text
    assert (tmp_path / "report" / "figures" / "robustness.png").exists()


def test_evaluations_are_summed_over_ode_blocks(tmp_path):
    network = {"name": "odenet", "width": 4, "blocks": 3}
    base = {**TINY, "data": {"name": "digits"}, "model": network}
    sweep = tiny(tmp_path, base=base, evaluate={"methods": ["rk4"], "steps": [2]})
    table = robustness(sweep, tmp_path, [point(0.5, method="rk4", steps=2)])
    assert list(table.columns) == ["configuration", "test solver", "n", "NFE 24"]


def test_budgets_are_ordered_by_cost_and_name_both_tolerances_where_they_differ(tmp_path):
    trained = {"method": "dopri5", "rtol": 1e-3, "atol": 1e-5}
    block = {"methods": ["dopri5"], "tols": [1e-4, 1e-2], "tol_factors": [1.0]}
    fixed = {"methods": ["euler"], "steps": [16, 4]}
    sweep = tiny(tmp_path, base={**TINY, "solver": trained}, evaluate=[block, fixed])
    found = [
        point(0.5, method="dopri5", tol=1e-4),
        point(0.6, method="dopri5", tol=1e-2),
        point(0.7, Solver(**trained), method="dopri5", tol_factor=1.0),
        point(0.8, method="euler", steps=16),
        point(0.9, method="euler", steps=4),
    ]
    table = robustness(sweep, tmp_path, found)
    costs = ["NFE 4", "NFE 16", "tol 0.01", "rtol 0.001, atol 1e-05", "tol 0.0001"]
    assert list(table.columns) == ["configuration", "test solver", "n", *costs]
    assert list(table.loc[0, costs]) == ["–", "–", "60.00", "70.00", "50.00"]


def test_a_tolerance_reached_by_a_factor_is_the_same_budget(tmp_path):
    trained = {"method": "dopri5", "tol": 3e-3}
    block = {"methods": ["dopri5"], "tols": [3e-4], "tol_factors": [0.1]}
    sweep = tiny(tmp_path, base={**TINY, "solver": trained}, evaluate=block)
    assert 3e-3 * 0.1 != 3e-4
    by_factor = point(0.5, Solver(**trained), method="dopri5", tol_factor=0.1)
    found = [point(0.5, method="dopri5", tol=3e-4), by_factor]
    table = robustness(sweep, tmp_path, found)
    assert table.drop(columns="configuration").to_dict("records") == [
        {"test solver": "dopri5", "n": "1", "tol 0.0003": "50.00"}
    ]


def test_points_on_subsets_of_the_test_set_are_not_mixed_in_a_figure(tmp_path):
    blocks = [{"methods": ["euler"], "steps": [4], "test_size": size} for size in (8, None)]
    sweep, store = tiny(tmp_path, evaluate=blocks), Store(tmp_path / "runs")
    run_trial(sweep.trials[0], store, options(sweep, tmp_path))
    evaluated = frames.evaluation_frame(sweep, store)
    assert len(evaluated) == 6  # its own solver, the limit and the point asked for, of each size
    curves = frames.robustness_curves(evaluated)
    assert list(curves["value"]) == list(evaluated[evaluated["test_size"].isna()]["value"])
    assert set(curves["nfe"]) == {2, 4, 512}


@pytest.mark.usefixtures("rendered_figures")
def test_a_trajectory_is_drawn_and_its_error_is_no_percentage(tmp_path):
    sweep = tiny(tmp_path, base=SPIRAL, grid=[{}], seeds=[0, 1])
    store = Store(tmp_path / "runs")
    for trial in sweep.trials:
        run_trial(trial, store, options(sweep, tmp_path))
    text = write_report_folder(sweep, store, tmp_path / "report").page.read_text()
    assert "](figures/trajectories.svg)" in text
    assert "](figures/error.svg)" in text
    shown = result_tables(sweep, frames.result_frame(sweep, store), pd.DataFrame(), pd.DataFrame())
    errors = [store.folder(t.id).result().summary["test_error"] for t in sweep.trials]
    low, high = sorted(errors)
    assert shown.main["error"][0] == f"{sum(errors) / 2:.4f} ({low:.4f}, {high:.4f})"
    assert "best epoch error †" in shown.details


def test_cells_of_a_custom_models_settings_are_told_apart(tmp_path):
    models = [{"name": "my.nets:Net", "settings": {"widths": widths}} for widths in ([8], [8, 8])]
    sweep = tiny(
        tmp_path,
        base={**TINY, "model": models[0]},
        grid={"model": models},
        evaluate={"methods": ["euler"], "steps": [4]},
    )
    assert sweep.varying == ["model.settings"]
    found = [[point(a, method="euler", steps=4)] for a in (0.5, 0.9)]
    table = robustness(sweep, tmp_path, *found)
    assert list(table["configuration"]) == ["widths [8]", "widths [8, 8]"]
    assert list(table["steps 4"]) == ["50.00", "90.00"]
    store = Store(tmp_path / "runs")
    for trial in sweep.trials:
        store.folder(trial.id).write_history([{"epoch": 1, "test_accuracy": 0.5}])
    assert frames.epoch_frame(sweep, store)["model.settings"].nunique() == 2
