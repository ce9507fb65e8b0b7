"""A process that keeps MLflow up to date with the store while a sweep runs.

A process, so that MLflow, slow or absent, never delays training or the driver; and it reads the
store, so that whoever trains need not know of it. MLflow is imported there alone.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

from nodebench.errors import InputError, TrackingError
from nodebench.planning.freshness import note_tracked, state_of
from nodebench.store import Store
from nodebench.sweep import Sweep
from nodebench.tracking.settings import configure_mlflow

EVERY_S = 2.0
PATIENCE_S = 5.0
LOST = "the process that writes to MLflow was lost"


class BackgroundTracker:
    """The driver's end of the process.

    `on_change` gets, in a thread, what prevents the writing, and None when it resumes. Where MLflow
    `is_required`, what prevents it from the start is for `require` to say.
    """

    def __init__(
        self,
        sweep: Sweep,
        store: Store,
        on_change: Callable[[str | None], None],
        *,
        is_required: bool = False,
    ):
        self._sweep, self._store, self._is_required = sweep, store, is_required
        context = multiprocessing.get_context("spawn")
        self._driver, end = context.Pipe()
        # A daemon, so that a driver that is interrupted does not wait for it.
        self._process = context.Process(target=_mirror, args=(sweep, store, end), daemon=True)
        self._process.start()
        end.close()
        self._state: str | None = None
        self._page: Path | None = None
        self._written = threading.Event()
        self._heard = threading.Event()
        self.problem: str | None = LOST
        """What went wrong; None once all is written."""
        self._listener = threading.Thread(target=self._listen, args=(on_change,), daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        """Waits until all is written; after an exception for a moment only."""
        self.finish()
        with contextlib.suppress(OSError):
            self._driver.send(self._page)
        self._process.join(None if kind is None else PATIENCE_S)
        if self._process.is_alive():
            self._process.terminate()  # the next launch catches up
            self._process.join()
        self._listener.join()
        if self._process.exitcode != 0:
            self.problem = LOST
        self._driver.close()
        if self.problem is None and self._state:
            note_tracked(self._sweep, self._store, self._state)

    def require(self) -> None:
        """Waits for the first contact with MLflow.

        Raises:
            TrackingError: if it fails.
        """
        self._heard.wait()
        if self.problem is not None:
            raise TrackingError(self.problem)

    def wait(self) -> None:
        """Waits until the store, which is complete, has been written, or cannot be."""
        self.finish()
        self._written.wait()

    def finish(self) -> None:
        """Says that the store is complete: what is missing of it is written, and no more."""
        if self._state is None:
            self._state = state_of(self._sweep, self._store)  # or later, is what will be written
            with contextlib.suppress(OSError):
                self._driver.send(None)

    def show(self, page: Path) -> None:
        """Has a report's folder written too, at the end."""
        self._page = page

    def _listen(self, on_change: Callable[[str | None], None]) -> None:
        before = None
        with contextlib.suppress(OSError, EOFError):
            while True:
                self.problem, is_last = self._driver.recv()
                is_for_require = self._is_required and not self._heard.is_set()
                self._heard.set()
                if self.problem != before and not is_for_require:
                    # In a thread of its own: where it raises, this one goes on.
                    watcher = threading.Thread(target=on_change, args=(self.problem,))
                    watcher.start()
                    watcher.join()
                before = self.problem
                if is_last:
                    self._written.set()
        self._heard.set()
        self._written.set()


def _mirror(sweep: Sweep, store: Store, driver: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver's to answer
    try:
        # One writer at a time: a driver that was killed may have left its own for a moment.
        with store.sweep(sweep.name).tracking_lock():
            _keep_up(sweep, store, driver)
    except (EOFError, ConnectionError):
        return  # the driver died: the next launch catches up
    except InputError as error:
        driver.send((str(error), True))
    finally:
        gc.freeze()  # Python's end would look through MLflow's modules for garbage, for a second


def _keep_up(sweep: Sweep, store: Store, driver: Connection) -> None:
    """Writes what is new every few seconds, and all that is missing when told to finish."""
    try:
        configure_mlflow()
        from nodebench.tracking.tracker import Tracker
    except ImportError as error:
        raise TrackingError(f"MLflow is not installed ({error})") from error

    tracker: Tracker | None = None
    finishing = had_problem = False
    while True:
        if finishing and had_problem:
            tracker = None  # a run whose making was answered too late is found and not made twice
        try:
            tracker = tracker or Tracker(sweep, store)
            tracker.update_all()
            driver.send((None, finishing))
        except TrackingError as error:  # it may come back
            driver.send((str(error), finishing))
            had_problem = True
            tracker = None  # what was written just before is known to MLflow alone
        if finishing:
            break
        if finishing := driver.poll(EVERY_S):
            driver.recv()
    page: Path | None = driver.recv()
    if page and tracker:
        tracker.log_report(page.parent)
