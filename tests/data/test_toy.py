from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from nodebench.data.toy import MINIMA, SLOPE, settle
from tests.support.fake_datasets import loaded

# ----------------------------------------------------------------------------------- spheres


@pytest.mark.parametrize("dim", [2, 10])
def test_spheres_lie_in_their_shells_in_the_ratio_1_2_1(dim: int) -> None:
    data = loaded(name="spheres", dim=dim)
    for split, size in ((data.train, 2000), (data.test, 1000)):
        assert split.inputs.shape == (size, dim)
        radius = split.inputs.norm(dim=1)
        for low, high, label, share in ((0.1, 0.15, 0, 1), (0.25, 0.3, 1, 2), (0.4, 0.45, 0, 1)):
            inside = (radius > low - 1e-6) & (radius < high + 1e-6)
            assert inside.sum() == size * share // 4
            assert (split.targets[inside] == label).all()
    assert data.classes == 2
    assert data.validation is None


@pytest.mark.parametrize("dim", [2, 10])
def test_spheres_point_in_every_direction_alike(dim: int) -> None:
    x = loaded(name="spheres", dim=dim, train_size=20_000).train.inputs
    direction = x / x.norm(dim=1, keepdim=True)
    # A component of a uniform direction has mean 0 and variance 1/dim: 5 standard errors.
    assert direction.mean(0).abs().max() < 5 / (dim * 20_000) ** 0.5
    moments = direction.T @ direction / 20_000
    torch.testing.assert_close(
        moments, torch.eye(dim) / dim, rtol=0, atol=5 * dim**-1 / 20_000**0.5
    )


def test_radii_follow_the_published_law() -> None:
    dim = 10
    data = loaded(name="spheres", dim=dim, train_size=20_000).train
    radius = data.inputs[data.targets == 1].norm(dim=1)
    # r = 0.25 + 0.05 u^(1/d), so ((r - 0.25)/0.05)^d is uniform in [0, 1].
    u = ((radius.double() - 0.25) / 0.05).clamp(0, 1) ** dim
    levels = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    torch.testing.assert_close(torch.quantile(u, levels), levels, rtol=0, atol=0.03)


def test_spheres_follow_from_the_seed_and_splits_differ() -> None:
    sizes = {"train_size": 12, "test_size": 12, "val_size": 12}
    first, again = (loaded(seed=3, name="spheres", **sizes) for _ in range(2))
    other = loaded(seed=4, name="spheres", **sizes)
    assert first.validation is not None
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert torch.equal(first.test.inputs, again.test.inputs)
    assert not torch.equal(first.train.inputs, other.train.inputs)
    for one, two in itertools.combinations((first.train, first.test, first.validation), 2):
        assert not torch.equal(one.inputs, two.inputs)


def test_a_validation_split_leaves_the_other_spheres_as_they_are() -> None:
    without, with_ = loaded(name="spheres"), loaded(name="spheres", val_size=100)
    assert with_.validation is not None
    assert len(with_.validation) == 100
    assert torch.equal(without.train.inputs, with_.train.inputs)


@pytest.mark.parametrize("size", [4, 5, 6, 7])
def test_spheres_of_any_size_have_as_many_points(size: int) -> None:
    assert len(loaded(name="spheres", train_size=size).train) == size


@pytest.mark.parametrize("name", ["spheres", "three-minima"])
def test_with_a_draw_seed_trials_of_all_seeds_see_the_same_points(name: str) -> None:
    sizes = {"name": name, "train_size": 12, "test_size": 12, "val_size": 12}
    own = loaded(seed=7, **sizes)
    for seed in (0, 3):
        drawn = loaded(seed=seed, draw_seed=7, **sizes)
        for part in ("train", "test", "validation"):
            assert torch.equal(getattr(drawn, part).inputs, getattr(own, part).inputs)
            assert torch.equal(getattr(drawn, part).targets, getattr(own, part).targets)
    first = loaded(seed=3, draw_seed=0, **sizes)
    assert not torch.equal(first.train.inputs, loaded(seed=3, **sizes).train.inputs)


# ------------------------------------------------------------------------------ three minima


def starts(**sizes: int) -> np.ndarray:
    return loaded(name="three-minima", **sizes).train.inputs.double().numpy()


def test_three_minima_start_in_their_rectangle_and_have_three_classes() -> None:
    data = loaded(name="three-minima")
    assert data.train.inputs.shape == (2000, 2)
    assert data.test.inputs.shape == (1000, 2)
    assert data.train.inputs.dtype == torch.float32
    assert data.train.targets.dtype == torch.int64
    assert (data.classes, data.validation) == (3, None)
    low, high = data.train.inputs.amin(0), data.train.inputs.amax(0)
    torch.testing.assert_close(low, torch.tensor([-1.0, -2.0]), rtol=0, atol=0.02)
    torch.testing.assert_close(high, torch.tensor([2.0, 2.0]), rtol=0, atol=0.02)
    shares = torch.bincount(data.train.targets) / 2000
    assert (shares > 0.2).all()


def test_every_particle_comes_to_rest_in_the_minimum_that_is_its_class() -> None:
    data = loaded(name="three-minima", train_size=500).train
    x, v = settle(data.inputs.double().numpy()).T
    assert np.abs(v).max() < 1e-3
    assert np.abs(x - np.array(MINIMA)[data.targets]).max() < 2e-3
    assert set(data.targets.tolist()) == {0, 1, 2}


def test_the_minima_are_where_the_slope_is_zero_and_rising() -> None:
    for minimum in MINIMA:
        assert abs(np.polyval(SLOPE, minimum)) < 2e-2
        assert np.polyval(np.polyder(SLOPE), minimum) > 0


def test_half_the_step_gives_nearly_all_particles_the_same_class() -> None:
    start = starts(train_size=500)
    classes = [
        np.abs(settle(start, step)[:, :1] - np.array(MINIMA)).argmin(1) for step in (0.02, 0.01)
    ]
    assert np.mean(classes[0] == classes[1]) > 0.995


def test_a_particle_settles_as_scipy_says() -> None:
    from scipy.integrate import solve_ivp

    def motion(_t: float, y: np.ndarray) -> tuple[float, float]:
        return y[1], -float(np.polyval(SLOPE, y[0])) - 0.2 * y[1]

    start = starts(train_size=3)
    exact = [solve_ivp(motion, (0, 5), y, rtol=1e-10, atol=1e-12).y[:, -1] for y in start]
    np.testing.assert_allclose(settle(start, end=5.0), exact, rtol=0, atol=1e-5)


def test_three_minima_follow_from_the_seed_and_splits_differ() -> None:
    sizes = {"train_size": 10, "test_size": 10, "val_size": 10}
    first, again = (loaded(seed=3, name="three-minima", **sizes) for _ in range(2))
    other = loaded(seed=4, name="three-minima", **sizes)
    assert first.validation is not None
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert torch.equal(first.train.targets, again.train.targets)
    assert not torch.equal(first.train.inputs, other.train.inputs)
    for one, two in itertools.combinations((first.train, first.test, first.validation), 2):
        assert not torch.equal(one.inputs, two.inputs)
