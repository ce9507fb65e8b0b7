from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from nodebench.data.load import load_data
from nodebench.data.trajectory import Trajectory, windows
from nodebench.models.build import build
from nodebench.spec import Trial, TrialSpec
from nodebench.store import Store
from nodebench.training.tasks.table import task_for
from nodebench.training.tasks.trajectory_fit import TrajectoryFit
from nodebench.training.trial import run_trial
from tests.support.tiny_sweeps import options, tiny

NOWHERE = Path("/nonexistent")


def spec(seed: int = 0, iterations: int = 200, **data: object) -> TrialSpec:
    return TrialSpec(
        data={"name": "spiral", **data},
        model="neuralode",
        solver={"method": "rk4", "step_size": 0.1},
        train={
            "batch_size": 32,
            "iterations": iterations,
            "optimizer": {"name": "adam", "lr": 0.02},
        },
        seed=seed,
    )


def coarsely_trained(iterations: int) -> TrialSpec:
    """A trial of half the steps and half the observations a window, which learns faster."""
    known = spec(iterations=iterations).model_dump(exclude_unset=True)
    known["solver"]["step_size"] = 0.2
    known["train"] |= {"batch_size": 16, "optimizer": {"name": "adam", "lr": 0.03}}
    return TrialSpec.model_validate(known)


def spiral(seed: int = 0, **data: object) -> Trajectory:
    found = load_data(spec(seed, **data), NOWHERE)
    assert isinstance(found, Trajectory)
    return found


def test_the_spiral_solves_its_equation() -> None:
    data = spiral()
    matrix = torch.tensor([[-0.1, -1.0], [1.0, -0.1]], dtype=torch.float64)
    start = torch.tensor([0.6, 0.3], dtype=torch.float64)
    expected = torch.stack([torch.linalg.matrix_exp(matrix * t) @ start for t in data.times])
    torch.testing.assert_close(data.exact.double(), expected, rtol=0, atol=1e-6)
    assert (len(data.times), data.times[0].item()) == (200, 0.0)
    assert data.times[-1].item() == pytest.approx(3 * 6.29)
    assert data.input_shape == (2,)


def test_observations_have_the_noise_of_their_seed() -> None:
    noise = spiral(points=20_000, noise=0.05)
    error = noise.observed - noise.exact
    assert error.std().item() == pytest.approx(0.05, rel=0.02)
    assert error.mean().abs().item() < 5 * 0.05 / 200
    assert torch.equal(spiral(3).observed, spiral(3).observed)
    assert not torch.equal(spiral(3).observed, spiral(4).observed)
    assert torch.equal(spiral(3).exact, spiral(4).exact)
    assert torch.equal(spiral(3, draw_seed=0).observed, spiral(0).observed)


def test_windows_are_ordered_short_and_drawn_from_seed_and_epoch() -> None:
    data = spiral(windows=400)
    drawn = list(windows(data, seed=0, epoch=0, most=32))
    assert len(drawn) == 400
    assert max(map(len, drawn)) == 32
    spans = []
    for window in drawn:
        assert (window.diff() > 0).all()
        spans.append((data.times[window[-1]] - data.times[window[0]]).item())
    assert max(spans) <= 5
    assert 2.0 < sum(spans) / len(spans) < 3.2  # lengths are uniform in [1, 5], points inside
    again = list(windows(data, seed=0, epoch=0, most=32))
    assert all(map(torch.equal, drawn, again))
    other = list(windows(data, seed=0, epoch=1, most=32))
    assert not all(
        len(a) == len(b) and torch.equal(a, b) for a, b in zip(drawn, other, strict=True)
    )
    starts = data.times[torch.stack([window[0] for window in drawn])]
    assert starts.min() < 1
    assert starts.max() > 13


def test_windows_start_where_the_longest_still_fits() -> None:
    data = spiral(windows=5000, points=2000)
    last = data.times[-1].item()
    starts = data.times[
        torch.stack([window[0] for window in windows(data, seed=0, epoch=0, most=2000)])
    ]
    gap = last / 1999  # of one observation to the next
    assert starts.max() <= last - 5 + gap
    # Uniform in [0, T - 5]: mean and deviation, to five standard errors.
    assert starts.mean().item() == pytest.approx((last - 5 + gap) / 2, abs=5 * 4 / 5000**0.5)
    assert starts.std().item() == pytest.approx((last - 5) / 12**0.5, rel=0.05)
    short = spiral(span=3.0, windows=50)
    assert all(window[0] <= 1 for window in windows(short, seed=0, epoch=0, most=200))


def test_the_loss_of_a_window_is_solved_from_its_first_observation() -> None:
    data = spiral()
    task = task_for(data, spec())
    model = build(spec(), data)
    window = torch.tensor([5, 9, 20])
    loss = task.loss(model, window)
    with torch.no_grad():
        states = model(data.observed[5], data.times[window].tolist())
    expected = (states - data.observed[window]).square().mean()
    torch.testing.assert_close(loss.mean.detach(), expected)
    assert loss.samples == 3
    torch.testing.assert_close(states[0], data.observed[5])


def test_the_error_is_the_distance_to_the_states_without_noise() -> None:
    data = spiral(noise=0.5)
    task = task_for(data, spec())
    assert isinstance(task, TrajectoryFit)
    model = build(spec(), data)
    first, last = model.block.f.g[0], model.block.f.g[2]
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[-0.1, -1.0], [1.0, -0.1]]))
        last.weight.copy_(torch.eye(2))
        last.bias.zero_()
    assert task.evaluate(model).measures["error"] < 1e-5
    with torch.no_grad():
        first.weight.zero_()  # it stays where it starts
    found = task.evaluate(model)
    still = (data.exact - data.exact[0]).square().mean().item()
    assert found.measures["loss"] == pytest.approx(still, rel=1e-5)
    assert found.measures["error"] == pytest.approx(math.sqrt(still), rel=1e-5)
    assert found.nfe >= 4 * 199


def test_a_trial_learns_the_spiral_and_leaves_its_trajectory(tmp_path: Path) -> None:
    trial, store = Trial(coarsely_trained(iterations=250)), Store(tmp_path)
    result = run_trial(trial, store, options(tiny(tmp_path), tmp_path))
    assert result.outcome == "finished"
    assert result.summary["test_error"] < 0.1
    assert result.summary["best_test_error"] <= result.summary["test_error"]
    assert "test_accuracy" not in result.summary
    rows = store.folder(trial.id).trajectories()
    assert len(rows) == 200
    distance = torch.tensor([[row["learned"], row["exact"]] for row in rows]).diff(dim=1)
    error = distance.square().mean().sqrt().item()
    assert error == pytest.approx(result.summary["test_error"], rel=1e-4)
