import math
import re
from dataclasses import replace

import pandas as pd
import pytest

from nodebench.report import comparison_tables, frames, solver_tables, tables
from nodebench.report.page import write_report
from nodebench.report.statistics import count_and_interval, half_width, mean_and_interval
from nodebench.solver_settings import Solver
from nodebench.store import Store
from nodebench.sweep import load
from nodebench.trial import run_trial
from nodebench.trial_folder import Result
from sweeps import TINY, options, point, tiny, write_tiny

ROW = {"nfe_forward": 2.0, "nfe_backward": 0.0, "parameters": 71, "epoch_s": 0.5}
HERE = {"hardware": "abacus", "threads": 1, "torch": "2", "device": "cpu"}


def result(accuracy, **changes):
    summary = {**ROW, "test_accuracy": accuracy, "best_test_accuracy": accuracy + 0.01}
    tags = {"commit": "abc", "dirty": "no"}
    return replace(Result("finished", "", 3, summary, [HERE], 1.0, 2.0, tags=tags), **changes)


@pytest.fixture
def made_up(tmp_path):
    """Two cells of three seeds with known accuracies; one trial diverged, one is missing."""
    sweep = tiny(tmp_path, grid={"solver.steps": [2, 4]}, seeds=[0, 1, 2])
    store = Store(tmp_path / "runs")
    results = [
        result(0.8),
        result(0.9),
        result(1.0),
        result(0.5),
        result(0.0, outcome="diverged", reason="loss is nan", epoch=1, summary={"parameters": 71}),
    ]
    for trial, made in zip(sweep.trials, results, strict=False):
        store.folder(trial.id).write_result(made)
        curve = [{"epoch": e, "test_accuracy": e / 10, "train_loss": 1 / e, **ROW} for e in (1, 2)]
        store.folder(trial.id).write_history([{**row, "iteration": 1, "time": 0} for row in curve])
    return sweep, store


def test_mean_and_sample_standard_deviation():
    assert mean_and_interval(pd.Series([80.0, 90.0, 100.0]), 2) == "90.00 ± 24.84"
    assert mean_and_interval(pd.Series([80.0]), 1) == "80.0"
    assert mean_and_interval(pd.Series([], dtype=float), 1) == "–"


def test_counts_that_agree_are_written_plainly():
    assert count_and_interval(pd.Series([8.0, 8.0])) == "8"
    assert count_and_interval(pd.Series([7.0, 9.0])) == "8.0 ± 12.7"
    assert count_and_interval(pd.Series([math.nan])) == "–"


def test_the_summary_averages_what_finished_and_shows_what_did_not(made_up):
    sweep, store = made_up
    table = tables.summary(sweep, frames.results(sweep, store), pd.DataFrame(), pd.DataFrame())
    assert list(table["solver.steps"]) == ["2", "4"]
    assert list(table["test accuracy %"]) == ["90.00 ± 24.84", "50.00"]
    assert list(table["n"]) == ["3", "1 of 3"]
    assert list(table["best epoch accuracy % †"]) == ["91.00 ± 24.84", "51.00"]
    assert list(table["parameters"]) == ["71", "71"]
    assert table["outcomes"][0] == "finished"
    assert table["outcomes"][1] == "1 finished, 1 DNF (diverged, epoch 2), 1 missing"


def test_only_columns_that_vary_are_shown(made_up):
    sweep, store = made_up
    columns = list(
        tables.summary(sweep, frames.results(sweep, store), pd.DataFrame(), pd.DataFrame())
    )
    assert columns[0] == "solver.steps"
    assert not any(column.startswith(("data.", "train.", "model.")) for column in columns)


def test_the_page_has_table_figures_failures_and_provenance(made_up, tmp_path):
    sweep, store = made_up
    page = write_report(sweep, store, tmp_path / "report")
    text = page.read_text()
    assert "**4 of 6 trials finished; 1 diverged, 1 missing.**" in text
    assert "DNF (diverged, epoch 2)" in text
    assert "loss is nan" in text
    for fact in ("hardware: abacus", "commit: abc", "torch: 2", "threads per trial: 1"):
        assert fact in text
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (page.parent / link).exists(), link
    frame = pd.read_csv(page.parent / "results.csv")
    assert list(frame["id"]) == [trial.id for trial in sweep.trials]
    assert (page.parent / "sweep.yaml").read_text() == sweep.text


def test_the_same_data_gives_the_same_bytes(made_up, tmp_path):
    sweep, store = made_up
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        write_report(sweep, store, folder)
    files = sorted(p.relative_to(folders[0]) for p in folders[0].rglob("*") if p.is_file())
    assert any(file.suffix == ".svg" for file in files)
    for file in files:
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes(), file


def test_a_sweep_without_results_still_has_a_page(tmp_path):
    sweep = tiny(tmp_path)
    text = write_report(sweep, Store(tmp_path / "runs"), tmp_path / "report").read_text()
    assert "0 of 1 trials finished" in text


def test_trained_weights_under_other_solvers_are_a_table(tmp_path):
    sweep = tiny(tmp_path, seeds=[0, 1], evaluate={"methods": ["euler", "rk4"], "nfe": [4, 6, 8]})
    store = Store(tmp_path / "runs")
    for trial in sweep.trials:
        run_trial(trial, store, options(sweep, tmp_path))
    frame = frames.evaluations(sweep, store)
    table = solver_tables.robustness(sweep, frame)
    assert list(table.columns) == ["test.method", "n", "NFE 4", "NFE 6", "NFE 8"]
    assert list(table["n"]) == ["2", "2"]
    assert list(table["test.method"]) == ["euler", "rk4"]
    # 6 evaluations do not divide by the four stages of rk4.
    assert table["NFE 6"][1] == "–"
    of_euler = frame[(frame["test.method"] == "euler") & (frame["test.steps"] == 4)]
    percent = of_euler["accuracy"] * 100
    assert table["NFE 4"][0] == mean_and_interval(percent, 2)


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
    return solver_tables.robustness(sweep, frames.evaluations(sweep, store))


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
    assert list(table.columns) == ["test.method", "n", "NFE 4"]


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
            for a in (0.4, 0.6)
        ),
    )
    assert list(table.columns) == ["test.method", "n", "tol 0.0001"]
    # Twice the same two values would have a smaller spread, 11.55.
    assert list(table["tol 0.0001"]) == ["50.00 ± 127.06"]
    assert list(table["n"]) == ["2"]


def test_points_that_the_sweep_does_not_ask_for_are_left_out(tmp_path):
    sweep = tiny(tmp_path, evaluate={"methods": ["euler"], "steps": [4]})
    others = [
        point(0.1, method="euler", steps=8),
        point(0.2, method="euler", steps=4, test_size=20),
        point(0.3, method="rk4", steps=4),
    ]
    table = robustness(sweep, tmp_path, [*others, point(0.9, method="euler", steps=4)])
    assert table.to_dict("records") == [{"test.method": "euler", "n": "1", "NFE 4": "90.00"}]
    unasked = tiny(tmp_path)
    assert frames.evaluations(unasked, Store(tmp_path / "runs")).empty


def test_a_mean_over_fewer_seeds_than_its_row_says_so(tmp_path):
    sweep = tiny(tmp_path, seeds=[0, 1, 2], evaluate={"methods": ["euler"], "steps": [2, 4]})
    both = [[point(a, method="euler", steps=n) for n in (2, 4)] for a in (0.4, 0.6)]
    half = [point(0.8, method="euler", steps=2), point("diverged", method="euler", steps=4)]
    table = robustness(sweep, tmp_path, *both, half)
    assert list(table["n"]) == ["3"]
    assert list(table["NFE 2"]) == ["60.00 ± 49.68"]
    assert list(table["NFE 4"]) == ["50.00 ± 127.06 (2 of 3), 1 diverged"]


def test_a_setting_that_no_evaluated_trial_has_is_a_dash(tmp_path):
    adaptive = [{"method": "dopri5", "tol": tol} for tol in (0.1, 0.01)]
    grid = {"solver": [{"method": "euler", "steps": 2}, *adaptive]}
    when = {"solver.method": "euler"}
    sweep = tiny(tmp_path, grid=grid, evaluate={"methods": ["euler"], "steps": [4], "when": when})
    assert "solver.tol" in sweep.varying
    table = robustness(sweep, tmp_path, [point(0.5, method="euler", steps=4)])
    assert list(table["solver.tol"]) == ["–"]
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


def test_robustness_is_drawn_over_evaluations_from_those_of_training(tmp_path):
    sweep = tiny(tmp_path, grid={"solver.steps": [2, 4]}, seeds=[0, 1], evaluate=EULER_4_8)
    store = Store(tmp_path / "runs")
    for trial in sweep.trials:
        run_trial(trial, store, options(sweep, tmp_path))
    evaluated = frames.evaluations(sweep, store)
    curves = frames.robustness_curves(evaluated)
    # The training solver's, the limit's, those asked for; Euler 4 is both the first and the last.
    assert list(curves["cell"]) == ["2"] * 4 + ["4"] * 3
    assert list(curves["trained_nfe"]) == [2] * 4 + [4] * 3
    assert list(curves["nfe"]) == [2, 512, 4, 8, 4, 512, 8]
    assert list(curves["own"]) == [True, False, False, False, True, False, False]
    found = evaluated[(evaluated["cell"] == "2") & (evaluated["nfe"] == 4)]["accuracy"]
    assert curves["value"][2] == pytest.approx(found.mean())
    assert curves["spread"][2] == pytest.approx(found.pipe(half_width))
    text = write_report(sweep, store, tmp_path / "report").read_text()
    assert "](figures/robustness.svg)" in text
    assert (tmp_path / "report" / "figures" / "robustness.png").exists()


def test_a_trajectory_is_drawn_and_its_error_is_no_percentage(tmp_path):
    sweep = tiny(tmp_path, base=SPIRAL, grid=[{}], seeds=[0, 1])
    store = Store(tmp_path / "runs")
    for trial in sweep.trials:
        run_trial(trial, store, options(sweep, tmp_path))
    text = write_report(sweep, store, tmp_path / "report").read_text()
    assert "](figures/trajectories.svg)" in text
    assert "](figures/error.svg)" in text
    table = tables.summary(sweep, frames.results(sweep, store), pd.DataFrame(), pd.DataFrame())
    errors = [store.folder(t.id).result().summary["test_error"] for t in sweep.trials]
    mean = sum(errors) / 2
    assert table["test error"][0].startswith(f"{mean:.4f} ± ")
    assert "best epoch error †" in table


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
    assert list(table["model.settings"]) == ['{"widths": [8]}', '{"widths": [8, 8]}']
    assert list(table["steps 4"]) == ["50.00", "90.00"]
    store = Store(tmp_path / "runs")
    for trial in sweep.trials:
        store.folder(trial.id).write_history([{"epoch": 1, "test_accuracy": 0.5}])
    assert frames.epochs(sweep, store)["model.settings"].nunique() == 2


def test_evaluations_are_summed_over_ode_blocks(tmp_path):
    network = {"name": "odenet", "width": 4, "blocks": 3}
    base = {**TINY, "data": {"name": "digits"}, "model": network}
    sweep = tiny(tmp_path, base=base, evaluate={"methods": ["rk4"], "steps": [2]})
    table = robustness(sweep, tmp_path, [point(0.5, method="rk4", steps=2)])
    assert list(table.columns) == ["test.method", "n", "NFE 24"]


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
    assert list(table.columns) == ["test.method", "n", *costs]
    assert list(table.loc[0, costs]) == ["–", "–", "60.00", "70.00", "50.00"]


def test_a_tolerance_reached_by_a_factor_is_the_same_budget(tmp_path):
    trained = {"method": "dopri5", "tol": 3e-3}
    block = {"methods": ["dopri5"], "tols": [3e-4], "tol_factors": [0.1]}
    sweep = tiny(tmp_path, base={**TINY, "solver": trained}, evaluate=block)
    assert 3e-3 * 0.1 != 3e-4
    by_factor = point(0.5, Solver(**trained), method="dopri5", tol_factor=0.1)
    found = [point(0.5, method="dopri5", tol=3e-4), by_factor]
    table = robustness(sweep, tmp_path, found)
    assert table.to_dict("records") == [{"test.method": "dopri5", "n": "1", "tol 0.0003": "50.00"}]


def test_results_are_tidy(made_up):
    sweep, store = made_up
    frame = frames.results(sweep, store)
    assert list(frame["seed"]) == [0, 1, 2] * 2
    assert frame["test_accuracy"].isna().sum() == 2
    epochs = frames.epochs(sweep, store)
    assert len(epochs) == 10
    assert math.isclose(epochs["train_loss"].max(), 1.0)
    assert TINY["model"]["name"] == frame["model.name"].unique().item()


def test_published_numbers_stand_beside_ours(tmp_path):
    # A loose tolerance of a method of higher order is no limit.
    evaluate = [
        {"methods": ["euler", "rk4"], "steps": [1, 160]},
        {"methods": ["dopri5"], "tols": [1.0]},
    ]
    path = write_tiny(
        tmp_path, name="spheres-solver", grid={"solver.steps": [2, 4]}, evaluate=evaluate
    )
    sweep, store = load(path), Store(tmp_path / "runs")
    for trial in sweep.trials:
        run_trial(trial, store, options(sweep, tmp_path))
    results, evaluated = frames.results(sweep, store), frames.evaluations(sweep, store)
    judged = frames.verdicts(sweep, store)
    table = comparison_tables.published_numbers(sweep, results, judged)
    assert list(table["cell"]) == ["2", "2"]  # of 4 steps, nothing is published
    assert list(table["what"]) == ["test accuracy %", "test accuracy %, at the limit"]
    assert list(table["published"]) == ["97", "48"]
    own = results["test_accuracy"][0]
    finest = evaluated[(evaluated["test.method"] == "rk4") & (evaluated["test.steps"] == 160)]
    limit = finest["accuracy"].iloc[0]
    assert list(table["ours"]) == [f"{100 * own:.2f}", f"{100 * limit:.2f}"]
    assert list(tables.summary(sweep, results, judged, pd.DataFrame())["published"]) == ["97", "–"]
    text = write_report(sweep, store, tmp_path / "report").read_text()
    assert "## Ours beside published numbers" in text


def test_a_sweep_of_other_data_has_no_published_numbers(tmp_path):
    digits = {"data": "digits", "model": "mlp", "train": {"epochs": 1}}
    sweep = load(write_tiny(tmp_path, name="spheres-solver", base=digits))
    assert comparison_tables.published_numbers(sweep, pd.DataFrame(), pd.DataFrame()).empty


def test_validation_is_a_column_and_chooses_the_best_epoch(tmp_path):
    base = {**TINY, "data": {**TINY["data"], "val_size": 20}, "train": {"epochs": 6}}
    sweep, store = tiny(tmp_path, base=base), Store(tmp_path / "runs")
    trial = sweep.trials[0]
    result = run_trial(trial, store, options(sweep, tmp_path))
    history = store.folder(trial.id).history()
    best = max(history, key=lambda row: row["val_accuracy"])
    assert result.summary["best_epoch"] == best["epoch"]
    assert result.summary["best_test_accuracy"] == best["test_accuracy"]
    table = tables.summary(sweep, frames.results(sweep, store), pd.DataFrame(), pd.DataFrame())
    last = history[-1]["val_accuracy"]
    assert list(table["validation accuracy %"]) == [f"{100 * last:.2f}"]


def test_an_adapted_solver_shows_where_it_ended_and_what_it_took(tmp_path):
    solvers = [{"method": "euler", "adapt": {"every": 2, "max_steps": 5}},
               {"method": "dopri5", "adapt": {"every": 2}}]  # fmt: skip
    sweep, store = tiny(tmp_path, grid={"solver": solvers}), Store(tmp_path / "runs")
    for trial in sweep.trials:
        run_trial(trial, store, options(sweep, tmp_path))
    table = tables.summary(sweep, frames.results(sweep, store), pd.DataFrame(), pd.DataFrame())
    euler, dopri5 = (store.folder(trial.id) for trial in sweep.trials)
    size = euler.result().summary["step_size"]
    at_limit = ", 1 at the limit" if size < 1 / 4 else ""
    assert table["final step size"][0] == f"{size:.4f}{at_limit}"
    assert table["final tol"][1] == f"{dopri5.result().summary['tol']:.2g}"
    assert (table["final step size"][1], table["final tol"][0]) == ("–", "–")
    mean = sum(row["nfe_forward"] for row in dopri5.history()) / 3
    assert table["NFE over training"][1] == f"{mean:.1f}"


def test_points_on_subsets_of_the_test_set_are_not_mixed_in_a_figure(tmp_path):
    blocks = [{"methods": ["euler"], "steps": [4], "test_size": size} for size in (8, None)]
    sweep, store = tiny(tmp_path, evaluate=blocks), Store(tmp_path / "runs")
    run_trial(sweep.trials[0], store, options(sweep, tmp_path))
    evaluated = frames.evaluations(sweep, store)
    assert len(evaluated) == 6  # its own solver, the limit and the point asked for, of each size
    curves = frames.robustness_curves(evaluated)
    assert list(curves["value"]) == list(evaluated[evaluated["test_size"].isna()]["value"])
    assert set(curves["nfe"]) == {2, 4, 512}
