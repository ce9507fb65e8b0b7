"""`run_trial`: one trial, from its spec to its result in the store."""

from __future__ import annotations

import errno
import logging
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from nodebench.data.load import load_data
from nodebench.errors import (
    InputError,
    StoreError,
    TrialFailure,
    TrialOutcome,
    masked,
)
from nodebench.models.build import build
from nodebench.models.device import to_device
from nodebench.ode.block import ode_blocks, share_memory
from nodebench.planning import RunOptions
from nodebench.planning.missing import is_missing
from nodebench.spec import Trial
from nodebench.spec.own_code import known_alone
from nodebench.spec.seed import stream
from nodebench.store import Result, Store, TrialFolder
from nodebench.store.giving_up import take_given_up
from nodebench.store.result import Row
from nodebench.training.adaptation import adaptation_for
from nodebench.training.checkpoint import TrainState, newest_checkpoint, read_checkpoint
from nodebench.training.evaluation import evaluate_points
from nodebench.training.loop import drop_last_test, new_state, train
from nodebench.training.machine import (
    environment,
    is_out_of_memory,
    memory_of_trial,
    select_device,
    set_precision,
    shortage,
)
from nodebench.training.record import Record
from nodebench.training.step import Step
from nodebench.training.task import Task
from nodebench.training.tasks.table import task_for


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
            if not is_missing(trial, folder.result(), store, options):
                return
            folder.create(trial)
            record = Record(trial, folder, options)
            yield from _with_outcome(_steps(trial, store, options, packed, record), record)
    except OSError as error:
        raise StoreError(f"`{folder.path}` cannot be written: {_told(error)}") from error


@dataclass(frozen=True)
class Prepared:
    """A trial's parts, on its device, before the first step.

    `untrained` builds the network again; of `packed` trials that share the device, this is one.
    """

    trial: Trial
    options: RunOptions
    packed: int
    device: torch.device
    task: Task[Any]
    state: TrainState
    untrained: Callable[[], nn.Module]

    def limit_solves(self, model: nn.Module, start: float) -> float | None:
        """Holds a model's solves to the trial's share of memory, and to its limits from `start`.

        Gives the deadline.
        """
        limits = self.options.limits
        # The others of a pack take their part of the time.
        deadline = None if limits.minutes is None else start + 60 * limits.minutes * self.packed
        memory = memory_of_trial(self.options.resources.gpu_share)
        share_memory(model, memory // self.packed)
        for block in ode_blocks(model):
            block.max_evaluations = limits.nfe
            block.deadline = deadline
        return deadline


def _steps(
    trial: Trial, store: Store, options: RunOptions, packed: int, record: Record
) -> Iterator[Step | Row]:
    """A trial's four steps: prepare, resume, train, evaluate."""
    prepared = _prepared(trial, options, packed)
    record.follow(prepared.state, prepared.task.chance)
    epochs_saved = _resume(prepared, store, record)
    yield from _train(prepared, record, epochs_saved)
    record.keep_end(prepared.state)
    _evaluate(prepared, record.folder)


def _with_outcome(steps: Iterator[Step | Row], record: Record) -> Iterator[Step | Row]:
    """The steps; the place where any exception becomes the trial's outcome."""
    try:
        yield from steps
    except GeneratorExit:
        if take_given_up(record.folder):
            record.end(TrialOutcome.STOPPED, "stopped by the search: other trials were better")
        raise
    except TrialFailure as failure:
        record.end(failure.outcome, str(failure))
    except InputError as error:
        record.end(TrialOutcome.ERROR, str(error))
    except SystemExit as request:
        if _is_rays(request.__traceback__):
            raise
        record.end(TrialOutcome.ERROR, f"its code calls `sys.exit({request.code!r})`")
    except Exception as error:  # noqa: BLE001 - a crash is recorded, and the sweep goes on
        if is_out_of_memory(error):
            record.end(TrialOutcome.OUT_OF_MEMORY, masked(shortage(error)))
            return
        with suppress(OSError):  # of a full disk, which the result's reason says
            record.folder.write_error(traceback.format_exc())
        record.end(TrialOutcome.ERROR, masked(f"{type(error).__name__}: {_told(error)}"))


def _told(error: Exception) -> str:
    """What an error says; of a full disk, also what to do."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}. `nodebench gc` lists files to delete; the same command resumes"
    return str(error)


def _is_rays(trace: TracebackType | None) -> bool:
    """Whether Ray ends its worker, by a signal's handler, and not the trial's own code."""
    *_, last = [frame for frame, _ in traceback.walk_tb(trace)]
    return str(last.f_globals.get("__name__")).partition(".")[0] == "ray"


def _prepared(trial: Trial, options: RunOptions, packed: int) -> Prepared:
    """Data, network and optimizer, as the spec and its seed make them."""
    torch.set_num_threads(options.resources.cpus)
    spec = trial.spec
    trial.require_as_named()
    set_precision(spec.train.precision)
    device = select_device(options.resources.gpu_share)

    def network() -> nn.Module:
        return to_device(build(spec, data), device, spec.train.precision)

    with known_alone(spec.import_paths):
        data = load_data(spec, options.data_root).to(device)
        model, task = network(), task_for(data, spec)
    torch.manual_seed(stream(spec.seed, "training"))
    state = new_state(model, spec, adaptation_for(model, task, spec))
    return Prepared(trial, options, packed, device, task, state, network)


def _resume(prepared: Prepared, store: Store, record: Record) -> int:
    """Goes back to the last checkpoint, or on from a shorter training's last, if there is one.

    Gives how many epochs the trial's own checkpoint has.
    """
    trial, state, folder = prepared.trial, prepared.state, record.folder
    if values := newest_checkpoint(folder):
        state.load(values, prepared.device)
        folder.log(f"resumed after epoch {state.epoch}, iteration {state.iteration}")
        return state.epoch
    if record.was_finished:
        folder.log("the checkpoint is missing: it is trained again, to be evaluated")
    shorter = prepared.options.continues.get(trial.id)
    if shorter and (values := _end_of(store.folder(shorter), folder)):
        state.load(values, prepared.device)
        state.continues = shorter
        drop_last_test(state.history, prepared.task, trial.spec.train)
        folder.log(f"continues {shorter} after {state.epoch} epochs")
    elif trial.spec.weights is not None:
        state.adopt_hook(Path(trial.spec.weights))
    return 0


def _end_of(shorter: TrialFolder, folder: TrialFolder) -> dict[str, Any] | None:
    """The last checkpoint of another trial, if it is still there and sound."""
    try:
        return read_checkpoint(shorter.checkpoint)
    except StoreError as error:
        folder.log(f"{error}: training from scratch")
        return None


def _train(prepared: Prepared, record: Record, epochs_saved: int) -> Iterator[Step | Row]:
    """Trains to the end, and keeps what comes of it."""
    state = prepared.state
    packed = {"packed": prepared.packed} if prepared.packed > 1 else {}
    here = environment(prepared.device) | packed
    if here not in state.environments:
        state.environments.append(here)
    start = record.start_clock(state, epochs_saved=epochs_saved)
    deadline = prepared.limit_solves(state.model, start)
    for item in train(state, prepared.task, prepared.trial.spec, deadline):
        if isinstance(item, Step):
            record.keep_step(state)
        else:
            record.keep_epoch(state)
        yield item


def _evaluate(prepared: Prepared, folder: TrialFolder) -> None:
    """Evaluates under other solvers; a limit of minutes holds for this on its own."""
    trial, task, options = prepared.trial, prepared.task, prepared.options
    model, start = prepared.state.model, time.monotonic()
    prepared.limit_solves(model, start)

    def untrained() -> nn.Module:
        other = prepared.untrained()
        prepared.limit_solves(other, start)
        return other

    with suppress(TrialFailure):  # which the points will tell
        if rows := task.trajectories(model):
            folder.write_trajectories(rows)
    wanted = options.points(trial)
    evaluate_points(model, untrained, task, trial, wanted, folder, options.limits)


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
