"""A process that keeps MLflow up to date with the store while a sweep runs.

It is a separate process, so that a slow or absent MLflow never delays training or the driver. It
reads the store, so that training code need not know about it. Only this process imports MLflow.
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
    """The driver's handle on the process, which imports MLflow at once and writes from `begin` on.

    `on_change` is called in a thread, with the problem that prevents writing, and with None when
    writing resumes. If MLflow `is_required`, a problem at the start is left to `require`.
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
        # A daemon, so that an interrupted driver does not wait for it.
        self._process = context.Process(target=_mirror, args=(sweep, store, end), daemon=True)
        self._process.start()
        end.close()
        self._has_begun = False
        self._state: str | None = None
        self._page: Path | None = None
        self._heard = threading.Event()
        self.problem: str | None = LOST
        """The current problem; None once everything is written."""
        self._listener = threading.Thread(target=self._listen, args=(on_change,), daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        """Waits until everything is written; after an exception, only for a moment."""
        if not self._has_begun:
            self._process.terminate()  # it has written nothing
        elif self._state is None:  # an exception came first
            self.finish(state_of(self._sweep, self._store))
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

    def begin(self) -> None:
        """Lets the process write."""
        self._has_begun = True
        with contextlib.suppress(OSError):
            self._driver.send(None)

    def require(self) -> None:
        """Waits for the first contact with MLflow.

        Raises:
            TrackingError: if it fails.
        """
        self._heard.wait()
        if self.problem is not None:
            raise TrackingError(self.problem)

    def finish(self, state: str) -> None:
        """Declares the store complete: the process writes the missing entries and stops polling.

        `state` is that of the store by now, of `freshness.state_of`: at least this is written.
        """
        self._state = state
        with contextlib.suppress(OSError):
            self._driver.send(None)

    def show(self, page: Path) -> None:
        """Has a report's folder written to MLflow too, at the end."""
        self._page = page

    def _listen(self, on_change: Callable[[str | None], None]) -> None:
        before = None
        with contextlib.suppress(OSError, EOFError):
            while True:
                self.problem = self._driver.recv()
                is_for_require = self._is_required and not self._heard.is_set()
                self._heard.set()
                if self.problem != before and not is_for_require:
                    # In a separate thread: if it raises, this one continues.
                    watcher = threading.Thread(target=on_change, args=(self.problem,))
                    watcher.start()
                    watcher.join()
                before = self.problem
        self._heard.set()


def _mirror(sweep: Sweep, store: Store, driver: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles it
    try:
        # One writer at a time: the process of a killed driver may live on for a moment.
        with store.sweep(sweep.name).tracking_lock():
            _keep_up(sweep, store, driver)
    except (EOFError, ConnectionError):
        return  # the driver died: the next launch catches up
    except InputError as error:
        driver.send(str(error))
    finally:
        gc.freeze()  # saves a second of garbage collection at exit


def _keep_up(sweep: Sweep, store: Store, driver: Connection) -> None:
    """Writes new results every few seconds, and everything missing when told to finish."""
    try:
        configure_mlflow()
        from nodebench.tracking.tracker import Tracker
    except ImportError as error:
        raise TrackingError(f"MLflow is not installed ({error})") from error

    driver.recv()  # `begin`
    tracker: Tracker | None = None
    finishing = had_problem = False
    while True:
        if finishing and had_problem:
            tracker = None  # reconnect, to find a run whose creation was answered too late
        try:
            tracker = tracker or Tracker(sweep, store)
            tracker.update_all()
            driver.send(None)
        except TrackingError as error:  # it may come back
            driver.send(str(error))
            had_problem = True
            tracker = None  # only MLflow knows what was written just before
        if finishing:
            break
        if finishing := driver.poll(EVERY_S):
            driver.recv()
    page: Path | None = driver.recv()
    if page and tracker:
        tracker.log_report(page.parent)
