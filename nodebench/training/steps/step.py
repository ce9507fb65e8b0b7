"""One training step, and the interface of classes that take steps faster."""

from __future__ import annotations

import traceback
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

    Code that iterates over a training may take the step in its place, and must call `finish`.
    """

    state: TrainState
    task: Task[Any]
    batch: Any
    taken: bool = False

    def take(self) -> None:
        """Forward, backward, and the optimizer's update, unless the step has been taken."""
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


class StepTaker(Protocol):
    """Takes steps in place of their trainings, where that is faster."""

    def take(self, steps: Sequence[Step]) -> None:
        """Takes the steps that it can, and leaves the others as they are."""


def try_to_take(taker: StepTaker, steps: Sequence[Step]) -> str | None:
    """Lets a taker take steps; returns its problem if it could not, with the traceback.

    A failed step leaves no trace: its own training takes it, or runs into the same failure.
    """
    try:
        taker.take(steps)
    except TrialFailure:
        return None
    except Exception as error:  # noqa: BLE001 - a plain step gives the same result
        return f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
    return None
