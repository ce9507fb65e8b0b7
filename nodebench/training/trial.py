"""`run_trial`: one trial, from its spec to its result in the store."""

from __future__ import annotations

import errno
import logging
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from nodebench.errors import (
    InputError,
    StoreError,
    TrialFailure,
    TrialOutcome,
    counted,
    masked,
)
from nodebench.planning import RunOptions
from nodebench.planning.missing import is_missing
from nodebench.spec import Trial
from nodebench.spec.own_code import place_in_users_code
from nodebench.store import Result, Store, TrialFolder
from nodebench.store.rows import Row
from nodebench.training.checkpoint import newest_checkpoint, read_checkpoint
from nodebench.training.evaluation import evaluate_points
from nodebench.training.loop import drop_last_test, train
from nodebench.training.machine import (
    environment,
    is_out_of_memory,
    shortage,
    where_memory_suffices,
)
from nodebench.training.preparation import Prepared, prepare_trial
from nodebench.training.record import Record
from nodebench.training.steps.step import Step


def run_trial(
    trial: Trial,
    store: Store,
    options: RunOptions,
    on_epoch: Callable[[Row], None] = lambda _row: None,
) -> Result:
    """Trains and evaluates a trial, from its last checkpoint if it has one.

    Any failure becomes the result's outcome. Finished parts are not repeated.

    Raises:
        StoreError: if another process holds the trial.
    """
    with closing(attempt(trial, store, options)) as items:  # also if `on_epoch` raises
        for item in items:
            if not isinstance(item, Step):
                on_epoch(item)
    result = store.folder(trial.id).result()
    assert result is not None
    return result


def attempt(
    trial: Trial, store: Store, options: RunOptions, packed: int = 1
) -> Generator[Step | Row, None, None]:
    """`run_trial` step by step: yields the items of `train`, and stores the result at the end.

    If it is closed earlier, the trial resumes from its last checkpoint. Each of `packed` trials
    that are trained together has its share of one trial's memory and `packed` times the minutes.

    Raises:
        StoreError: if another process holds the trial, or its folder cannot be written.
    """
    folder = store.folder(trial.id)
    try:
        with folder.locked(), _captured_warnings(folder):
            if not is_missing(trial, folder.result(), folder, options):
                return
            folder.create(trial, packed)
            record = Record(trial, folder, options)
            yield from _with_outcome(_phases(trial, store, options, packed, record), record)
    except OSError as error:
        raise StoreError(f"`{folder.path}` cannot be written: {_message(error)}") from error


def _phases(
    trial: Trial, store: Store, options: RunOptions, packed: int, record: Record
) -> Iterator[Step | Row]:
    """A trial's four phases: prepare, resume, train, evaluate."""
    trial.require_as_named()
    prepared = prepare_trial(trial.spec, options, packed=packed)
    record.follow(prepared.new_state(), prepared.task.chance)
    _resume(trial, prepared, store, record)
    yield from _train(prepared, record)
    record.keep_end()
    _evaluate(trial, prepared, record.folder)


def _with_outcome(phases: Iterator[Step | Row], record: Record) -> Iterator[Step | Row]:
    """The items of the phases; any exception in them becomes the trial's outcome."""
    try:
        yield from phases
    except GeneratorExit:
        if record.folder.take_given_up():
            record.end(TrialOutcome.STOPPED, "stopped by the search: other trials were better")
        raise
    except TrialFailure as failure:
        record.end(failure.outcome, str(failure))
    except InputError as error:
        record.end(TrialOutcome.ERROR, str(error))
    except SystemExit as request:
        if _is_by_ray(request.__traceback__):
            raise
        record.end(TrialOutcome.ERROR, f"its code calls `sys.exit({request.code!r})`")
    except Exception as error:  # noqa: BLE001 - a crash is recorded, and the sweep continues
        if is_out_of_memory(error):
            record.end(TrialOutcome.OUT_OF_MEMORY, masked(shortage(error)))
            return
        with suppress(OSError):  # a full disk, which the result's reason reports
            record.folder.write_error(traceback.format_exc())
        record.end(TrialOutcome.ERROR, masked(_told(error)))


def _told(error: Exception) -> str:
    """An error's class and message, and its place if that is in the user's own code."""
    place = place_in_users_code(error)
    where = f" (`{place[0]}`, line {place[1]})" if place else ""
    return f"{type(error).__name__}: {_message(error)}{where}"


def _message(error: Exception) -> str:
    """An error's message; for a full disk, also what to do."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}. `nodebench gc` lists files to delete; the same command resumes"
    return str(error)


def _is_by_ray(trace: TracebackType | None) -> bool:
    """Whether Ray's signal handler ended the worker, and not the trial's own code."""
    *_, last = [frame for frame, _ in traceback.walk_tb(trace)]
    return str(last.f_globals.get("__name__")).partition(".")[0] == "ray"


def _resume(trial: Trial, prepared: Prepared, store: Store, record: Record) -> None:
    """Restores the last checkpoint or, without one, the last of a shorter training, if any."""
    folder, state = record.folder, record.state
    if values := newest_checkpoint(folder):
        state.load(values, prepared.device)
        record.resumed()
        folder.log(f"resumed after epoch {state.epoch}, iteration {state.iteration}")
        return
    if record.was_finished:
        folder.log("the checkpoint is missing: trained again, to be evaluated")
    shorter = prepared.options.continues.get(trial.id)
    if shorter and (values := _end_of(store.folder(shorter), folder)):
        state.continue_from(shorter, values, prepared.device)
        drop_last_test(state.history, prepared.task, trial.spec.train)
        folder.log(f"continues {shorter} after {counted(state.epoch, 'epoch')}")
    elif trial.spec.weights is not None:
        state.adopt_solver(Path(trial.spec.weights))


def _end_of(shorter: TrialFolder, folder: TrialFolder) -> dict[str, Any] | None:
    """The last checkpoint of another trial, if it still exists and is intact."""
    try:
        return read_checkpoint(shorter.checkpoint)
    except StoreError as error:
        folder.log(f"{error}: training from scratch")
        return None


def _train(prepared: Prepared, record: Record) -> Iterator[Step | Row]:
    """Trains to the end, and records the checkpoints and epochs."""
    state = record.state
    packed = {"packed": prepared.packed} if prepared.packed > 1 else {}
    here = environment(prepared.device) | packed
    if here not in state.environments:
        state.environments.append(here)
    deadline = prepared.deadline(record.start_clock())
    prepared.limit_solves(state.model, deadline)
    for item in train(state, prepared.task, prepared.spec, deadline):
        if isinstance(item, Step):
            record.keep_step()
        else:
            record.keep_epoch()
        yield item


def _evaluate(trial: Trial, prepared: Prepared, folder: TrialFolder) -> None:
    """Evaluates under other solvers; evaluation has its own limit of minutes."""
    deadline = prepared.deadline(time.monotonic())
    prepared.limit_solves(prepared.model, deadline)
    with suppress(TrialFailure), where_memory_suffices():  # the points report failures
        if rows := prepared.task.trajectories(prepared.model):
            folder.write_trajectories(rows)
    evaluate_points(prepared, trial, folder, deadline)


class _ToLog(logging.Handler):
    """Writes messages to a trial's log."""

    def __init__(self, folder: TrialFolder):
        super().__init__()
        self._folder = folder

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a message."""
        self._folder.log(record.getMessage())


@contextmanager
def _captured_warnings(folder: TrialFolder) -> Generator[None]:
    """Sends Python's warnings to the trial's log.

    A pack's warnings go to the logs of all its trials: Python issues each once per process.
    """
    handler = _ToLog(folder)
    logger = logging.getLogger("py.warnings")
    logger.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logging.captureWarnings(bool(logger.handlers))  # a pack runs several trials at a time
