"""One training step, and the interface of classes that take steps faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nodebench.errors import TrialFailure
from nodebench.ode.block import PassCounts, one_pass
from nodebench.training import optimization
from nodebench.training.checkpoint import TrainState
from nodebench.training.task import Loss, Task


@dataclass
class Step:
    """One batch's step that a training is about to take; its state can be saved at this point.

    Code that iterates over a training may take the step in its place, and must call `finish`. If
    that code has a bug, the `bug` is raised where the training takes the step.
    """

    state: TrainState
    task: Task[Any]
    batch: Any
    taken: bool = False
    bug: Exception | None = None

    def take(self) -> None:
        """Forward, backward, and the optimizer's update, unless the step has been taken."""
        if self.bug:
            raise self.bug
        if self.taken:
            return
        state = self.state
        with one_pass(state.model) as forward, state.regularized() as penalty:
            loss = self.task.loss(state.model, self.batch)
        objective = penalty.added_to(loss.mean) if penalty else loss.mean
        state.optimizer.zero_grad()
        with one_pass(state.model) as backward:
            objective.backward()
        if penalty:
            state.sums.add_penalty(penalty, loss.samples)
        if state.adaptation:
            state.adaptation.after_backward(
                state.model, self.task, self.batch, loss, forward.nfe, state.iteration
            )
        self.finish(loss, forward, backward)

    def finish(self, loss: Loss, forward: PassCounts, backward: PassCounts) -> None:
        """Completes the step once the gradients are there: the update, and the epoch's sums."""
        state = self.state
        state.sums.count(forward, backward)
        optimization.step_optimizer(state.optimizer)
        state.sums.add(loss)
        state.iteration += 1
        self.taken = True


CANNOT_TAKE = (RuntimeError, ValueError, MemoryError)
"""The errors of `vmap`, of CUDA graphs, and of a lack of memory."""


class StepTaker(Protocol):
    """Takes steps in place of their trainings, where that is faster."""

    def take(self, steps: Sequence[Step]) -> None:
        """Takes the steps that it can, and leaves the others as they are."""


def try_to_take(taker: StepTaker, steps: Sequence[Step]) -> str | None:
    """Lets a taker take steps; returns its problem if it could not, which may recur.

    A failed step leaves no trace: its own training takes it, or runs into the same failure. Any
    other error is a bug of the taker, which ends the trainings of these steps.
    """
    try:
        taker.take(steps)
    except TrialFailure:
        return None
    except CANNOT_TAKE as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 - the trainings raise it, and so their trials record it
        for step in steps:
            step.bug = error
    return None
