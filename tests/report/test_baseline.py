"""Cells beside the baseline, claims, and the answer, on made-up results."""

from __future__ import annotations

import pytest

from nodebench.errors import SweepError
from nodebench.report.analysis.baseline import baseline_table, more_seeds_text, partners
from nodebench.report.answer import answer, listed
from nodebench.sweep.partial_cells import agrees
from tests.support.fake_results import GRID, RELU, TANH, made, steady
from tests.support.planned_sweeps import sweep
from tests.support.tiny_sweeps import tiny


def test_cell_is_compared_with_its_otherwise_identical_partner(tmp_path):
    sweep, found = made(tmp_path, steady, baseline={"model.activation": "relu"})
    fine, coarse = found.compared[1], found.compared[0]
    assert [(c.cell, c.baseline) for c in found.compared] == [
        ("tanh steps 2", "relu steps 2"),
        ("tanh steps 8", "relu steps 8"),
    ]
    assert fine.tested.difference.mean == pytest.approx(0.1)
    assert (fine.tested.reading, coarse.tested.reading) == ("better", "no clear difference")
    assert fine.tested.p < 0.001 <= coarse.tested.p
    table = baseline_table(sweep, found.compared)
    assert table["difference %"].tolist()[1] == "+10.00"
    assert table["p (Holm)"].tolist()[1] == "< 0.001"


def test_a_cell_that_is_worse_says_so(tmp_path):
    _, found = made(tmp_path, steady, baseline={"model.activation": "tanh"})
    assert {c.cell: c.tested.reading for c in found.compared}["relu steps 8"] == "worse"


def test_too_few_seeds_are_not_tested(tmp_path):
    made_up, found = made(tmp_path, steady, seeds=2, baseline={"model.activation": "relu"})
    assert [c.tested.reading for c in found.compared] == ["too few seeds"] * 2
    table = baseline_table(made_up, found.compared)
    assert not {"95 % interval", "Cohen's d", "p (Holm)"} & {*table}


def test_more_seeds_narrow_intervals_by_student_s_t(tmp_path):
    _, found = made(tmp_path / "three", steady, baseline={"model.activation": "relu"})
    text = (
        "At the same spread between seeds, 6 seeds would narrow the intervals to 42 % of their "
        "width, 12 seeds to 26 %."
    )
    assert more_seeds_text(found.compared) == text
    _, found = made(tmp_path / "two", steady, seeds=2, baseline={"model.activation": "relu"})
    assert more_seeds_text(found.compared) == ""


def test_more_seeds_are_not_mentioned_without_intervals(tmp_path):
    def parallel(activation, steps, seed):
        return 0.5 + 0.1 * seed + 0.1 * (activation == "tanh")

    _, found = made(tmp_path, parallel, baseline={"model.activation": "relu"})
    assert len(found.compared) == 2
    assert more_seeds_text(found.compared) == ""


def test_a_trial_that_did_not_finish_is_no_pair(tmp_path):
    def broken(activation: str, steps: int, seed: int) -> float | str | None:
        if activation == "tanh" and seed == 1:
            return "diverged" if steps == 8 else None
        return steady(activation, steps, seed)

    _, found = made(tmp_path, broken, baseline={"model.activation": "relu"})
    assert [c.tested.difference.n for c in found.compared] == [2, 2]


def test_a_cell_of_the_baseline_has_no_partner(tmp_path):
    sweep, _ = made(tmp_path, steady)
    assert sweep.trials[0].cell.key not in partners(sweep, RELU)
    assert sweep.trials[0].cell.key not in partners(sweep, {"data.name": "spheres"})
    assert sweep.trials[0].cell.key not in partners(sweep, {"model.activation": "sigmoid"})


def test_a_cell_with_several_partners_has_none(tmp_path):
    steps = {"model.name": ["odenet"], "solver.steps": [1, 2]}
    found = sweep(tmp_path, grid=[{"model.name": ["resnet"]}, steps])
    resnet, odenet = found.trials[0], found.trials[1]
    assert resnet.cell.key not in partners(found, {"model.name": "odenet"})
    assert partners(found, {"model.name": "resnet"})[odenet.cell.key].cell == resnet.cell


def test_each_cell_is_matched_with_the_baseline_once(tmp_path, monkeypatch):
    """A comparison of each with each would take a large sweep's report minutes."""
    looks = []

    def counted(spec, named):
        looks.append(spec)
        return agrees(spec, named)

    monkeypatch.setattr("nodebench.report.analysis.baseline.agrees", counted)
    grid = {"solver.steps": list(range(1, 11)), "model.width": [4, 8]}
    found = partners(sweep(tmp_path, grid=grid), {"model.width": 4})
    assert len(found) == 10
    assert len(looks) == 20


def test_a_group_named_as_one_may_differ_in_all_of_it(tmp_path):
    ways = [{"method": "euler", "steps": 8}, {"method": "rk4", "steps": 2}]
    found = sweep(tmp_path, grid={"solver": ways})
    euler, rk4 = found.trials
    assert rk4.cell.key not in partners(found, {"solver.method": "euler"})
    assert partners(found, {"solver": {"method": "euler"}})[rk4.cell.key].cell == euler.cell


def test_a_cell_that_the_baseline_lacks_is_not_compared_with_another(tmp_path):
    grid = [{**{k: [v] for k, v in RELU.items()}, "solver.steps": [2]}]
    grid += [{**{k: [v] for k, v in TANH.items()}, "solver.steps": [2, 8]}]
    _, found = made(tmp_path, steady, grid=grid, baseline=RELU)
    assert [(c.cell, c.baseline) for c in found.compared] == [("tanh steps 2", "relu steps 2")]


def test_the_same_difference_in_every_pair_is_not_tested(tmp_path):
    """.90, .91, .92 against .95, .96, .97: a large difference, and no measure of its scatter."""

    def apart(activation: str, _steps: int, seed: int) -> float:
        return (0.95 if activation == "tanh" else 0.90) + 0.01 * seed

    made_up, found = made(tmp_path, apart, baseline=RELU)
    alike = "the same difference in every pair (not tested)"
    assert [c.tested.reading for c in found.compared] == [alike] * 2
    table = baseline_table(made_up, found.compared)
    assert table[["difference %", "reading"]].to_numpy()[0].tolist() == ["+5.00", alike]
    assert not {"95 % interval", "Cohen's d", "p (Holm)"} & {*table}  # no row has any
    said = "2 with the same difference in every pair (not tested)"
    assert f"{said} (of 2 configurations)." in listed(answer(found))

    def of_one(activation: str, steps: int, seed: int) -> float:
        return apart(activation, steps, seed) if steps == 8 else steady(activation, steps, seed)

    made_up, found = made(tmp_path / "one", of_one, baseline=RELU)
    table = baseline_table(made_up, found.compared)
    numbers = table[["difference %", "95 % interval", "Cohen's d", "p (Holm)", "reading"]]
    assert numbers.to_numpy()[1].tolist() == ["+5.00", "–", "–", "–", alike]


def test_pairs_that_are_missing_are_counted(tmp_path):
    def diverging(activation: str, steps: int, seed: int) -> float | str:
        is_lost = (activation, steps, seed) == ("tanh", 8, 4)
        return "diverged" if is_lost else steady(activation, steps, seed)

    made_up, found = made(tmp_path, diverging, seeds=5, baseline=RELU)
    assert list(baseline_table(made_up, found.compared)["pairs"]) == ["5", "4 of 5"]


def test_cells_are_the_same_only_if_every_seed_is(tmp_path):
    def even(activation: str, steps: int, seed: int) -> float:
        return 0.5 + (0.1 * (seed - 1) if (activation, steps) == ("tanh", 8) else 0.0)

    _, found = made(tmp_path, even, baseline=RELU)
    assert [c.tested.reading for c in found.compared] == ["the same", "no clear difference"]


def test_a_baseline_that_no_trial_has_is_a_mistake(tmp_path):
    with pytest.raises(SweepError, match=r"baseline \(line \d+\): matches no trial"):
        tiny(tmp_path, grid=GRID, baseline={"model.width": 1000})
