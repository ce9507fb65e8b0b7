"""`run_trial`: one trial, from its spec to its result in the store."""

from __future__ import annotations

import logging
import statistics
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nodebench.data.load import load
from nodebench.errors import InputError, OutOfMemory, Stopped, StoreError, TrialFailure, masked
from nodebench.models.build import build, parameter_count
from nodebench.models.device import to_device
from nodebench.ode.block import ode_blocks, share_memory
from nodebench.planning import RunOptions
from nodebench.planning.missing import is_missing, limit_of
from nodebench.spec import Trial
from nodebench.spec.data import Dataset
from nodebench.spec.own_code import known_alone
from nodebench.spec.seed import stream
from nodebench.store import Result, Store, TrialFolder
from nodebench.store.result import ERROR, FINISHED, Row
from nodebench.store.signals import take_given_up
from nodebench.sweep.points import points
from nodebench.training.adaptation import adaptation_for
from nodebench.training.checkpoint import TrainState, newest_checkpoint, read_checkpoint, restore
from nodebench.training.evaluation import evaluate_points
from nodebench.training.loop import drop_last_test, new_state, train
from nodebench.training.machine import (
    device_for,
    environment,
    is_out_of_memory,
    memory_of_trial,
    shortage,
)
from nodebench.training.step import Step
from nodebench.training.task import Task, task_for


def run_trial(
    trial: Trial,
    store: Store,
    options: RunOptions,
    on_epoch: Callable[[Row], None] = lambda _row: None,
) -> Result:
    """Trains and evaluates a trial, from its last checkpoint if it has one.

    Whatever goes wrong becomes the result's outcome. What is finished is not done again.

    Raises:
        StoreError: if another process holds the trial.
    """
    for item in attempt(trial, store, options):
        if not isinstance(item, Step):
            on_epoch(item)
    result = store.folder(trial.id).result()
    assert result is not None
    return result


def attempt(
    trial: Trial, store: Store, options: RunOptions, packed: int = 1
) -> Generator[Step | Row, None, None]:
    """`run_trial` bit by bit: yields what `train` does; at its end the result is stored.

    Closed before, it leaves a trial that goes on from its last checkpoint. Of `packed` trials
    that are trained together, each has its part of one trial's memory and time.

    Raises:
        StoreError: if another process holds the trial, or not even its end can be written.
    """
    folder = store.folder(trial.id)
    try:
        with folder.locked(), _captured_warnings(folder):
            before = folder.result()
            if not is_missing(trial, before, store, options):
                return
            folder.create(trial)
            yield from _Run(trial, store, options, before, packed).attempt()
    except OSError as error:
        raise StoreError(f"`{folder.path}` cannot be written: {error.strerror}") from error


def trained_model(folder: TrialFolder, data_root: Path) -> nn.Module:
    """A finished trial's network, in evaluation mode, on the CPU.

    Its ODE blocks have the solver of the training's end.

    Raises:
        StoreError: if the trial has not finished its training, or its checkpoint is damaged.
    """
    spec, result = folder.spec(), folder.result()
    if result is None or result.outcome != FINISHED:
        state = "not finished" if result is None else str(result)
        raise StoreError(f"the training in `{folder.path}` is {state}: run its sweep first")
    spec = spec.model_copy(update={"weights": None})  # those of the checkpoint come instead
    model = build(spec, load(spec, data_root))
    restore(model, read_checkpoint(folder.checkpoint))
    return model.eval()


class _Run:
    """One attempt at a trial, under its lock."""

    def __init__(
        self, trial: Trial, store: Store, options: RunOptions, before: Result | None, packed: int
    ):
        self.trial, self.store, self.options, self.before = trial, store, options, before
        self.packed = packed
        self.folder = store.folder(trial.id)
        self.started = time.time()
        self.recorded = self.folder.history()
        self.state: TrainState | None = None
        self.saved, self.saved_epochs = time.monotonic(), 0
        self.outcome, self.reason = "", ""
        self.chance: float | None = None

    def attempt(self) -> Iterator[Step | Row]:
        """Runs the trial; the place where any exception becomes its outcome."""
        try:
            yield from self._attempt()
        except GeneratorExit:
            if take_given_up(self.folder):
                self._ended(Stopped.outcome, "the search gave it up: others did better by then")
            raise
        except TrialFailure as failure:
            self._ended(failure.outcome, str(failure))
        except InputError as error:
            self._ended(ERROR, str(error))
        except Exception as error:  # noqa: BLE001 - a crash is recorded, and the sweep goes on
            if is_out_of_memory(error):
                self._ended(OutOfMemory.outcome, masked(shortage(error)))
                return
            with suppress(OSError):  # of a full disk, which the result's reason says
                self.folder.write_error(traceback.format_exc())
            self._ended(ERROR, masked(f"{type(error).__name__}: {error}"))

    def _attempt(self) -> Iterator[Step | Row]:
        torch.set_num_threads(self.options.resources.cpus)
        spec = self.trial.spec
        self.trial.require_as_named()
        device = device_for(self.options.resources.gpu_share, spec.train.precision)

        def network() -> nn.Module:
            return to_device(build(spec, data), device, spec.train.precision)

        with known_alone(spec.import_paths):
            data = load(spec, self.options.data_root).to(device)
            model, task = network(), task_for(data, spec)
        self.chance = task.chance
        torch.manual_seed(stream(spec.seed, "training"))
        self.state = new_state(model, spec, adaptation_for(model, task, spec))
        self._begin(self.state, task)
        packed = {"packed": self.packed} if self.packed > 1 else {}
        here = environment(device) | packed
        if here not in self.state.environments:
            self.state.environments.append(here)
        self.clock = time.monotonic() - self.state.elapsed_s
        deadline = self._limit_solves(model, self.clock)
        for item in train(self.state, task, spec, deadline):
            if isinstance(item, Step):
                self._between_steps()
                yield item
                continue
            self._keep_record(self.state.history)
            self.folder.log(_summary_line(item))
            if time.monotonic() - self.saved >= self.options.checkpoint_s:
                self._save()
            yield item
        if self.saved_epochs < self.state.epoch or not self.folder.checkpoint.exists():
            self._save()
        self.folder.checkpoint_before.unlink(missing_ok=True)
        self._ended(FINISHED, "")
        self._evaluate(model, network, task)

    def _begin(self, state: TrainState, task: Task[Any]) -> None:
        """Goes back to the last checkpoint, or on from a shorter training's last, if there is."""
        spec = self.trial.spec
        if values := newest_checkpoint(self.folder):
            state.load(values, task.device)
            self.saved_epochs = state.epoch
            self.folder.log(f"resumed after epoch {state.epoch}, iteration {state.iteration}")
            return
        if self.before is not None and self.before.outcome == FINISHED:
            self.folder.log("its checkpoint is gone: it is trained again, to be evaluated")
        shorter = self.options.continues.get(self.trial.id)
        if shorter and (values := self._end_of(shorter)):
            state.load(values, task.device)
            state.continues = shorter
            drop_last_test(state.history, task, spec.train)
            self.folder.log(f"continues {shorter} after {state.epoch} epochs")
        elif spec.weights is not None:
            state.adopt_hook(Path(spec.weights))

    def _end_of(self, shorter: str) -> dict[str, Any] | None:
        """The last checkpoint of another trial, if it is still there and sound."""
        try:
            return read_checkpoint(self.store.folder(shorter).checkpoint)
        except StoreError as error:
            self.folder.log(f"{error}: the training begins anew")
            return None

    def _between_steps(self) -> None:
        """In a long epoch, checkpoints also between two of its steps."""
        if time.monotonic() - self.saved >= 60 * self.options.checkpoint_minutes:
            self._save()

    def _write_history(self, history: list[Row]) -> None:
        """What was trained again, as after a limit, has more rows on record than it has now."""
        self.folder.write_history(history + self.recorded[len(history) :])

    def _keep_record(self, history: list[Row]) -> None:
        """An epoch that is trained again, as after a limit, keeps the seconds of its first time."""
        epoch = len(history)
        if epoch <= len(self.recorded):
            history[-1] = self.recorded[epoch - 1]

    def _ended(self, outcome: str, reason: str) -> None:
        """Writes the result; a trained model stays trained, whatever happens to its evaluation."""
        if reason:
            with suppress(OSError):
                self.folder.log(f"{outcome}: {reason}")
        if not self.outcome:
            self.outcome, self.reason = outcome, reason
            if self.before is not None and self.before.outcome == FINISHED:
                return
            if self.state is not None:
                # After a failure, ahead of the checkpoint: what has been trained is shown.
                with suppress(OSError) if outcome == ERROR else nullcontext():
                    self._write_history(self.state.history)
            self.folder.write_result(self._result())

    def _limit_solves(self, model: nn.Module, start: float) -> float | None:
        minutes, packed = self.options.limits.minutes, self.packed
        # The others of a pack take their part of the time.
        deadline = None if minutes is None else start + 60 * minutes * packed
        memory = memory_of_trial(self.options.resources.gpu_share)
        share_memory(model, memory // packed)
        for block in ode_blocks(model):
            block.max_evaluations = self.options.limits.nfe
            block.deadline = deadline
        return deadline

    def _save(self) -> None:
        """Checkpoint first, history second: what is shown of a trial is never lost again."""
        assert self.state is not None
        self.state.elapsed_s = time.monotonic() - self.clock
        self.state.save(self.folder.checkpoint, aside=self.folder.checkpoint_before)
        self._write_history(self.state.history)
        self.saved, self.saved_epochs = time.monotonic(), self.state.epoch

    def _evaluate(
        self, model: nn.Module, untrained: Callable[[], nn.Module], task: Task[Any]
    ) -> None:
        """Evaluates under other solvers; a limit of minutes holds for this on its own."""
        wanted, start = points(self.trial, self.options.evaluate), time.monotonic()
        self._limit_solves(model, start)

        def limited() -> nn.Module:
            other = untrained()
            self._limit_solves(other, start)
            return other

        with suppress(TrialFailure):  # which the points will tell
            if rows := task.trajectories(model):
                self.folder.write_trajectories(rows)
        evaluate_points(model, limited, task, self.trial, wanted, self.folder, self.options.limits)

    def _result(self) -> Result:
        state = self.state
        how = {"continues": state.continues} if state and state.continues else {}
        blocks = list(ode_blocks(state.model)) if state else []
        if forms := {form for block in blocks for form in block.exact_forms.values()}:
            how["exact_gradient"] = ", ".join(sorted(forms))
        return Result(
            outcome=self.outcome,
            reason=self.reason,
            epoch=state.epoch if state else 0,
            summary=_summary(state, self.trial.spec.data, self.chance) if state else {},
            environments=state.environments if state else [],
            started=self.started,
            finished=time.time(),
            limit=limit_of(self.outcome, self.options.limits),
            recipe=self.trial.recipe_id,
            tags=self.options.tags | how,
        )


def _summary(state: TrainState, data: Dataset, chance: float | None) -> dict[str, Any]:
    """The last epoch's metrics, the best epoch's, chance, and the number of parameters.

    The best epoch is that of the validation data, or of the test data if there are none.
    """
    summary: dict[str, Any] = {"parameters": parameter_count(state.model)}
    if chance is not None:
        summary["chance"] = chance
    if state.history:
        headline, sign = data.headline, 1 if data.higher_is_better else -1
        tested = [row for row in state.history if headline in row]
        judge = f"val_{data.metric}" if tested and f"val_{data.metric}" in tested[0] else headline
        best = max(tested, key=lambda row: sign * row[judge], default={})
        summary |= {k: v for k, v in state.history[-1].items() if k not in ("epoch", "time")}
        if best:
            summary |= {f"best_{headline}": best[headline], "best_epoch": best["epoch"]}
        if "epoch_s" in summary:
            summary["epoch_s"] = statistics.median(row["epoch_s"] for row in state.history)
        if "nfe_forward" in summary:
            summary["nfe_forward_mean"] = statistics.fmean(r["nfe_forward"] for r in state.history)
    return summary


def _summary_line(row: Row) -> str:
    shown = {k: v for k, v in row.items() if k not in ("time", "peak_memory_bytes")}
    return "  ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()
    )


@contextmanager
def _captured_warnings(folder: TrialFolder) -> Iterator[None]:
    """Sends Python's warnings to the trial's log."""
    handler = logging.Handler()
    handler.emit = lambda record: folder.log(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("py.warnings")
    logger.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logging.captureWarnings(bool(logger.handlers))  # a pack has several trials at once
