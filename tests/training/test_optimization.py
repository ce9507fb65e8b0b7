from __future__ import annotations

import math

import pytest

from nodebench.spec.training import Constant, Cosine, Milestones
from nodebench.training.optimization import learning_rate_factor
from tests.support.tiny_trainings import spec, trained


def test_milestones_in_epochs() -> None:
    schedule = Milestones(name="milestones", at=(2, 3.5), gamma=0.1)
    factors = [learning_rate_factor(schedule, i, unit=4, total=20) for i in range(20)]
    assert factors == pytest.approx([1.0] * 8 + [0.1] * 6 + [0.01] * 6)


def test_milestones_in_iterations() -> None:
    schedule = Milestones(name="milestones", at=(3,), gamma=0.5)
    factors = [learning_rate_factor(schedule, i, unit=1, total=6) for i in range(6)]
    assert factors == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]


def test_a_cosine_falls_from_one_towards_its_end() -> None:
    schedule = Cosine(name="cosine", final=0.2)
    factors = [learning_rate_factor(schedule, i, unit=5, total=100) for i in range(101)]
    assert (factors[0], factors[100]) == (1.0, pytest.approx(0.2))
    assert factors[50] == pytest.approx(0.6)
    assert factors[25] == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert factors == sorted(factors, reverse=True)


def test_a_warm_up_climbs_in_equal_parts() -> None:
    schedule = Constant(name="constant", warmup=2)
    factors = [learning_rate_factor(schedule, i, unit=4, total=20) for i in range(12)]
    assert factors == pytest.approx([i / 8 for i in range(1, 9)] + [1.0] * 4)
    in_iterations = [learning_rate_factor(schedule, i, unit=1, total=20) for i in range(4)]
    assert in_iterations == [0.5, 1.0, 1.0, 1.0]


def test_a_warm_up_multiplies_what_the_schedule_says() -> None:
    schedule = Milestones(name="milestones", at=(1,), gamma=0.1, warmup=4)
    factors = [learning_rate_factor(schedule, i, unit=1, total=8) for i in range(5)]
    assert factors == pytest.approx([0.25, 0.05, 0.075, 0.1, 0.1])


@pytest.mark.parametrize(
    ("length", "expected"),
    [({"epochs": 4}, [0.5, 0.5, 0.05, 0.05]), ({"iterations": 8}, [0.5, 0.05, 0.05, 0.05])],
    ids=["epochs", "iterations"],
)
def test_a_schedule_counts_in_the_unit_of_the_length(length: dict, expected: list) -> None:
    schedule = {"name": "milestones", "at": [2]}
    settings = {"batch_size": 25, "schedule": schedule, "optimizer": {"name": "sgd", "lr": 0.5}}
    history = trained(spec(train=settings | length)).history
    assert [row["lr"] for row in history] == pytest.approx(expected)
