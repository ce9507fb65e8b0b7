"""Steps that a taker takes in place of their trainings, or fails to take."""

from types import SimpleNamespace

import pytest
import torch

from nodebench.errors import EvaluationLimit
from nodebench.training.steps.step import Step, try_to_take


def failing(error):
    """A taker that raises an error."""

    def take(_steps):
        raise error

    return SimpleNamespace(take=take)


@pytest.mark.parametrize(
    "error", [ValueError("no rule"), torch.OutOfMemoryError("no room"), MemoryError("no room")]
)
def test_a_step_that_cannot_be_taken_is_left_to_its_training_with_the_reason(error):
    step = Step(None, None, None)
    assert try_to_take(failing(error), [step]) == f"{type(error).__name__}: {error}"
    assert step.bug is None


def test_a_failure_of_the_trial_is_no_problem_of_the_taker():
    step = Step(None, None, None)
    assert try_to_take(failing(EvaluationLimit("too many")), [step]) is None
    assert step.bug is None


@pytest.mark.parametrize("bug", [AssertionError(), AttributeError("none"), KeyError("none")])
def test_a_bug_is_raised_where_each_training_takes_its_step(bug):
    steps = [Step(None, None, None), Step(None, None, None, taken=True)]
    assert try_to_take(failing(bug), steps) is None
    for step in steps:
        with pytest.raises(type(bug)):
            step.take()
