"""Tests of what a report says of gradients: fronts, ratios to backprop, powers of memory."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from nodebench.api import write_report
from nodebench.report import gradient_tables
from nodebench.report.analysis.findings import Findings
from nodebench.report.analysis.gradients import (
    fitted_power,
    gradient_costs,
    ways,
    with_own_gradients,
)
from nodebench.report.answer import answer, listed
from nodebench.report.solver_tables import gradients_table
from nodebench.spec import Trial
from nodebench.store import Store
from nodebench.sweep import Sweep
from nodebench.training.trial import run_trial
from tests.support.tiny_sweeps import options, tiny

SYSTEM = {
    "data": {"name": "system", "system": "decay", "rate": 2, "span": 1.0},
    "model": "system",
    "solver": {"method": "euler", "steps": 4},
    "train": {"iterations": 0},
}
OWN = {"gradients": ["own"], "at": ["start"]}


def measured(tmp_path: Path, **fields: object) -> tuple[Sweep, Store]:
    sweep, store = tiny(tmp_path, base=SYSTEM, evaluate=OWN, **fields), Store(tmp_path / "runs")
    for trial in sweep.trials:
        run_trial(trial, store, options(sweep, tmp_path))
    return sweep, store


@pytest.fixture(scope="module")
def three_ways(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Store]:
    """At three numbers of steps: backprop, the adjoint, and reversible Heun's gradient."""
    counts = [16, 64, 256]
    grid = [
        {"gradient": ["backprop", "adjoint"], "solver.steps": counts},
        {
            "gradient": ["reversible"],
            "solver": [{"method": "reversible_heun", "steps": n} for n in counts],
        },
    ]
    return measured(tmp_path_factory.mktemp("three-ways"), grid=grid)


@pytest.mark.parametrize("power", [0, 0.5, 1, 3.9])
def test_power_is_that_of_the_growing_part(power: float) -> None:
    pairs = [(n, 1000 + 70 * n**power) for n in (16, 100, 256, 1024)]
    assert fitted_power(pairs) == pytest.approx(power, abs=1e-5)
    assert fitted_power(pairs[:2]) is None


@pytest.mark.parametrize(
    "memory",
    [
        (100, 100, 1000),  # a plateau that another layer sets
        (100, 99.9, 1000),
        (100, 100.5, 400),  # faster than steps^4
        (100, 400, 400),  # slower than the logarithm of the steps
        (100, 400, 100),
        (400, 100, 50),
    ],
)
def test_power_is_none_where_memory_grows_by_no_power(memory: tuple[float, ...]) -> None:
    assert fitted_power([*zip((2, 4, 8), memory, strict=True)]) is None


def test_power_is_zero_where_memory_hardly_changes() -> None:
    assert fitted_power([(2, 100), (4, 99.5), (8, 101)]) == 0
    assert fitted_power([(2, 100), (4, 101), (8, 99.5)]) == 0


def test_every_trial_has_the_numbers_of_its_own_gradient(three_ways) -> None:
    sweep, store = three_ways
    results = Findings(sweep, store).results
    by_way = results.set_index(["gradient.name", "solver.steps"])
    assert by_way.loc["backprop", "memory_power"].tolist() == pytest.approx([1] * 3, abs=0.05)
    assert by_way.loc["adjoint", "memory_power"].tolist() == pytest.approx([0] * 3, abs=0.01)
    assert by_way.loc["reversible", "memory_power"].tolist() == pytest.approx([0] * 3, abs=0.01)
    assert (by_way.loc["backprop", "backprop_error"] == 0).all()
    assert (by_way.loc["adjoint", "backprop_error"] > 1e-3).all()
    # Euler's error falls with the step, and the state's gradient has it too.
    errors = by_way.loc["backprop", ["gradient_error", "state_gradient_error"]]
    for column in errors:
        assert errors[column].iloc[0] / errors[column].iloc[1] == pytest.approx(4, rel=0.4)


def test_costs_are_in_units_of_backprops_by_the_same_solver(three_ways) -> None:
    sweep, store = three_ways
    costs = Findings(sweep, store).costs.set_index(["way", "budget"])
    assert len(costs) == 9
    plain, adjoint = costs.loc["backprop"], costs.loc["adjoint"]
    assert (plain["of_memory"] == 1).all()
    ratio = adjoint["memory"] / plain["memory"]
    pd.testing.assert_series_equal(adjoint["of_memory"], ratio, check_names=False)
    assert costs.loc["reversible reversible_heun", "of_memory"].isna().all()  # backprop had none


def test_front_holds_the_points_that_no_other_surpasses(three_ways) -> None:
    sweep, store = three_ways
    costs = Findings(sweep, store).costs
    points = list(costs[["error", "memory", "seconds"]].itertuples(index=False, name=None))
    for point, is_front in zip(points, costs["is_front"], strict=True):
        surpassed = any(
            other != point and all(a <= b for a, b in zip(other, point, strict=True))
            for other in points
        )
        assert is_front == (not surpassed)
    assert costs["is_front"].any()


@pytest.mark.usefixtures("rendered_figures")
def test_the_answer_says_which_was_exact_cheapest_and_lightest(three_ways, tmp_path: Path) -> None:
    sweep, store = three_ways
    found = Findings(sweep, store)
    by_way = ways(found.costs).set_index("way")
    assert by_way["is_exact"].to_dict() == {
        "backprop": True, "reversible reversible_heun": True, "adjoint": False,
    }  # fmt: skip
    text = listed(answer(found))
    assert "as exact as `backprop`, up to rounding: `reversible reversible_heun`;" in text
    assert "lightest after it: `adjoint` (" in text
    assert "from its gradient)." in text
    table = gradient_tables.ways_table(found.costs).set_index("gradient")
    assert table.loc["adjoint", "exact"] == "no"
    page = write_report(sweep, store, tmp_path / "report")
    sections = ("## Which gradient to trust", "## Memory by the number of steps")
    assert all(section in page.read_text() for section in sections)
    figures = {path.name for path in (page.parent / "figures").iterdir()}
    assert {"gradient-costs.svg", "gradient-memory.svg"} <= figures


def test_seconds_are_of_a_training_step_only_where_every_cell_was_timed(tmp_path: Path) -> None:
    grid = {"gradient": ["backprop", "adjoint"]}
    sweep, store = measured(tmp_path, grid=grid, seeds=[0, 1, 2])
    plain, adjoint = (next(t for t in sweep.trials if t.settings["gradient.name"] == name)
                      for name in ("backprop", "adjoint"))  # fmt: skip
    row = {"step_memory_bytes": 8e6, "load_before": 0.0, "time": 0.0}
    row |= {"hardware": "abacus", "device": "cpu", "threads": 1, "torch": "2"}
    store.folder(plain.id).add_timing({**row, "step_s": 2.0, "timed_epoch_s": 2.0})
    assert not Findings(sweep, store).costs["is_timed"].any()
    store.folder(adjoint.id).add_timing({**row, "step_s": 3.0, "timed_epoch_s": 3.0})
    costs = Findings(sweep, store).costs.set_index("way")
    assert costs["seconds"].to_dict() == {"backprop": 2.0, "adjoint": 3.0}  # of one seed of three
    assert (costs["memory"] == 8e6).all()


def test_seconds_of_different_machines_are_not_mixed(tmp_path: Path) -> None:
    sweep, store = measured(tmp_path, grid={"gradient": ["backprop", "adjoint"]})
    plain, adjoint = (next(t for t in sweep.trials if t.settings["gradient.name"] == name)
                      for name in ("backprop", "adjoint"))  # fmt: skip
    row = {"step_memory_bytes": 8e6, "load_before": 0.0, "time": 0.0}
    row |= {"device": "cpu", "threads": 1, "torch": "2"}

    def add(trial: Trial, hardware: str, seconds: float) -> None:
        timing = {"hardware": hardware, "step_s": seconds, "timed_epoch_s": seconds}
        store.folder(trial.id).add_timing({**row, **timing})

    add(plain, "abacus", 20.0)
    add(adjoint, "laptop", 2.0)
    assert not Findings(sweep, store).costs["is_timed"].any()
    add(plain, "laptop", 1.0)
    costs = Findings(sweep, store).costs.set_index("way")
    assert costs["seconds"].to_dict() == {"backprop": 1.0, "adjoint": 2.0}
    assert costs["of_seconds"].to_dict() == {"backprop": 1.0, "adjoint": 2.0}


def test_own_gradient_at_the_end_is_preferred_to_that_at_the_start(tmp_path: Path) -> None:
    evaluate = {"gradients": ["own"], "at": ["start", "end"]}
    base = {**SYSTEM, "train": {"iterations": 0}}
    sweep = tiny(tmp_path, base=base, evaluate=evaluate, grid={"gradient": ["backprop", "adjoint"]})
    store = Store(tmp_path / "runs")
    for trial in sweep.trials:
        run_trial(trial, store, options(sweep, tmp_path))
    found = Findings(sweep, store)
    assert set(found.gradients["at"]) == {"start", "end"}
    error = found.gradients["at"].map({"start": 1.0, "end": 2.0})
    changed = found.gradients.assign(gradient_error=error)
    results = found.results.drop(columns=[*found.results.filter(like="gradient_"), "memory_power"])
    joined = with_own_gradients(sweep, results, changed)
    assert set(joined["gradient_error"]) == {2.0}
    assert set(gradient_costs(sweep, changed, found.timed)["error"]) == {2.0}


@pytest.mark.usefixtures("rendered_figures")
def test_several_systems_have_a_figure_of_their_errors(tmp_path: Path) -> None:
    grid = {"data.rate": [1, 10], "gradient": ["backprop", "aca"]}
    sweep, store = measured(tmp_path, grid=grid)
    page = write_report(sweep, store, tmp_path / "report")
    assert (page.parent / "figures" / "gradient-errors.svg").exists()
    assert set(Findings(sweep, store).costs["problem"]) == {"1", "10"}


def test_a_solve_that_two_blocks_ask_for_is_one_measurement(tmp_path: Path) -> None:
    grid = {"solver": [{"method": "dopri5", "tol": tol} for tol in (1e-2, 1e-4)]}
    grid["gradient"] = ["backprop", "adjoint"]
    both = {"methods": ["dopri5"], "tols": [1e-2, 1e-4], "gradients": ["backprop", "adjoint"]}
    blocks = [OWN, {**both, "at": ["start"]}]
    sweep, store = tiny(tmp_path, base=SYSTEM, evaluate=blocks, grid=grid), Store(tmp_path / "runs")
    for trial in sweep.trials:
        run_trial(trial, store, options(sweep, tmp_path))
    found = Findings(sweep, store)
    assert len(found.gradients) == 4 * 4
    assert found.gradients["own"].sum() == 4
    assert set(gradients_table(found.gradients)["n"]) == {"1"}
    plain = found.costs[found.costs["way"] == "backprop"]
    assert (plain["of_seconds"] == 1).all()
    # Adaptive solves alone tell too, and backprop needs no telling.
    table = gradient_tables.ways_table(found.costs).set_index("gradient")
    assert table["exact"].to_dict() == {"backprop": "by definition", "adjoint": "no"}


def test_exactness_is_unknown_for_a_gradient_not_compared_with_backprops(tmp_path: Path) -> None:
    solver = {"method": "reversible_heun", "steps": 16}
    grid = [
        {"gradient": ["backprop"], "solver.steps": [16]},
        {"gradient": ["reversible"], "solver": [solver]},
    ]
    sweep, store = measured(tmp_path, grid=grid)
    costs = Findings(sweep, store).costs
    costs.loc[costs["way"] != "backprop", "from_backprop"] = float("nan")
    table = gradient_tables.ways_table(costs).set_index("gradient")
    assert table["exact"].tolist() == ["by definition", "–"]


def test_a_gradient_that_fails_is_not_exact(tmp_path: Path) -> None:
    solver = {"method": "rk4", "steps": 8}
    grid = {"gradient": ["backprop", "symplectic"], "solver": [solver]}
    # The symplectic adjoint's backward pass takes 24 + 32 evaluations.
    sweep, store = measured(tmp_path, grid=grid, limits={"nfe": 40})
    costs = Findings(sweep, store).costs
    assert costs.set_index("way")["failed"].to_dict() == {"backprop": 0, "symplectic": 1}
    assert ways(costs).set_index("way")["is_exact"].to_dict() == {
        "backprop": True, "symplectic": False,
    }  # fmt: skip
