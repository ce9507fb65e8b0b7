import pytest
import torch

from nodebench.cli.text import cost_text
from nodebench.errors import DeadlineExceeded, Diverged
from nodebench.execution.costs import probed
from nodebench.execution.probe import probe_trial
from nodebench.store import Store
from tests.support.tiny_sweeps import TINY, options, tiny


def test_a_probe_takes_a_few_steps_and_counts_the_rest(tmp_path):
    sweep = tiny(tmp_path, base={**TINY, "train": {"epochs": 100, "batch_size": 4}})
    found = probe_trial(sweep.trials[0], options(sweep, tmp_path))
    assert len(found.steps) == 8
    assert found.iterations == 100 * 16
    assert found.tests == 100
    assert not found.grows
    cost = found.cost()
    assert cost.low <= cost.seconds <= cost.high
    assert cost.seconds == pytest.approx(1600 * found.step_s + 100 * found.test_s)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_probe_counts_evaluations_by_what_they_cost_beside_the_training_solver(tmp_path):
    base = {**TINY, "train": {"epochs": 2, "batch_size": 16}}
    sweep = tiny(tmp_path, base=base, evaluate={"methods": ["euler", "rk4"], "steps": [8]})
    found = probe_trial(sweep.trials[0], options(sweep, tmp_path))
    # Beside two tests: own 1, Euler 8 over 2, RK4 4 × 8 over 2, the limit 4 × 128 over 2.
    assert found.tests == 2 + 1 + 4 + 16 + 256


def test_a_probe_counts_evaluations_on_a_part_of_the_test_set_as_that_part(tmp_path):
    base = {**TINY, "train": {"epochs": 2, "batch_size": 4}}  # 32 test samples, 8 passes
    evaluate = {"methods": ["euler"], "steps": [8], "test_size": 10}
    sweep = tiny(tmp_path, base=base, evaluate=evaluate)
    found = probe_trial(sweep.trials[0], options(sweep, tmp_path))
    # Beside two tests, by 3 of 8 passes each: own 1, Euler 8 over 2, the limit 4 × 128 over 2.
    assert found.tests == 2 + (1 + 4 + 256) * 3 / 8


def test_an_epoch_of_few_steps_is_enough_and_adaptive_solvers_grow(tmp_path):
    base = {**TINY, "solver": {"method": "dopri5", "tol": 1e-3}}
    sweep = tiny(tmp_path, base={**base, "train": {"iterations": 3, "batch_size": 16}})
    found = probe_trial(sweep.trials[0], options(sweep, tmp_path))
    assert (len(found.steps), found.iterations, found.grows) == (2, 3, True)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (torch.OutOfMemoryError("made up"), "its first steps need more memory than there is"),
        (MemoryError(), "its first steps need more memory than there is"),
        (
            RuntimeError("mat1 and mat2 cannot be multiplied\nand more"),
            "its first steps end in an error: mat1 and mat2 cannot be multiplied",
        ),
        (Diverged("the loss is nan"), "a solve with the initial weights fails (diverged)"),
        (
            DeadlineExceeded("60 s"),
            "a solve with the initial weights does not end within 60 s",
        ),
    ],
)
def test_a_probe_that_fails_says_why(tmp_path, monkeypatch, error, why):
    def fail(*_arguments, **_more):
        raise error

    monkeypatch.setattr("nodebench.execution.probe.train", fail)
    sweep = tiny(tmp_path)
    assert probe_trial(sweep.trials[0], options(sweep, tmp_path)) == why
    costs, forecast = probed(sweep, Store(tmp_path / "runs"))
    assert costs == {sweep.trials[0].cell.key: why}
    assert forecast is None
    assert cost_text(why) == f"unknown: {why}"
