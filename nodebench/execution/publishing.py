"""Brings MLflow and the report of a sweep up to date around a launch."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from nodebench.errors import InputError, ResourceError
from nodebench.execution.preflight import require_places
from nodebench.execution.runner import Monitor
from nodebench.planning.freshness import note_reported, reported_answer, state_of
from nodebench.planning.launches import remember, require_name
from nodebench.report.folder import require_no_loss, require_report_folder
from nodebench.store import Store
from nodebench.store.locations import report_folder, tracking_uri
from nodebench.sweep import Sweep
from nodebench.tracking.background import BackgroundTracker


@dataclass(frozen=True)
class Publication:
    """Where the results of a sweep are published."""

    track: bool = True
    """Whether results are written to MLflow."""

    require_mlflow: bool = False
    """Whether to refuse to start if MLflow cannot be written."""

    write_report: bool = True
    replace_other: bool = False
    """Whether the sweep may replace another one of the same name."""

    def require_places(self, sweep: Sweep, store: Store) -> None:
        """Refuses, before anything is written, places that are not writable or already taken.

        Raises:
            InputError: if MLflow is required and not to be written.
            ResourceError: if a folder cannot be written.
            StoreError: if the place is taken by files of the user or by another sweep, or by a
                report that shows more, where either sweep was changed by `--set`.
            TrackingError: if MLFLOW_TRACKING_URI is not an address.
        """
        if self.require_mlflow and not self.track:
            raise InputError("`--require-mlflow` and `--no-track` contradict each other")
        folder = report_folder(sweep.name) if self.write_report else None
        require_places(store, folder)
        require_name(sweep, store, replace=self.replace_other)
        if self.track:
            tracking_uri(store)
        if folder:
            require_report_folder(folder)
        if folder and not self.replace_other:
            require_no_loss(sweep, folder)


@dataclass
class Published:
    """A sweep's report and its runs in MLflow, and what went wrong with either.

    `answer` is the list with which the report opens, as plain text; `undrawn` lists the figures
    that are missing from it, and why.
    """

    page: Path | None = None
    answer: list[str] = field(default_factory=list)
    tracking_problem: str | None = None
    report_problem: str | None = None
    undrawn: list[str] = field(default_factory=list)


class Publisher:
    """Publishes the results of a launch, once it has begun; `published` is what it has done."""

    def __init__(
        self, sweep: Sweep, store: Store, tracker: BackgroundTracker | None, *, is_required: bool
    ):
        self._sweep, self._store = sweep, store
        self._tracker, self._is_required = tracker, is_required
        self.published = Published()

    def begin(self) -> None:
        """Enters the sweep in the store, and begins to write to MLflow.

        Raises:
            TrackingError: if MLflow is required and cannot be used.
        """
        remember(self._sweep, self._store)
        if self._tracker:
            self._tracker.begin()
            if self._is_required:
                self._tracker.require()


@contextmanager
def publishing(
    sweep: Sweep,
    store: Store,
    monitor: Monitor,
    publication: Publication,
) -> Generator[Publisher]:
    """Keeps MLflow up to date with a sweep meanwhile, and writes its report at the end.

    MLflow is imported at once, in a process of its own; nothing is written before `begin`.
    """
    required = publication.require_mlflow
    with (
        BackgroundTracker(sweep, store, monitor.on_tracking, is_required=required)
        if publication.track
        else nullcontext() as tracker
    ):
        publisher = Publisher(sweep, store, tracker, is_required=required)
        found = publisher.published
        yield publisher
        state = state_of(sweep, store)
        if tracker:
            tracker.finish(state)
        ids = [trial.id for trial in sweep.trials]
        if publication.write_report and store.has_progress(ids):  # at the same time as MLflow
            try:
                found.page = _publish_report(sweep, store, monitor, found, state)
            except (OSError, ResourceError) as error:  # the trials are kept in any case
                found.report_problem = str(error)
        if tracker and found.page:
            tracker.show(found.page)
    found.tracking_problem = tracker.problem if tracker else None


def _publish_report(
    sweep: Sweep, store: Store, monitor: Monitor, found: Published, state: str
) -> Path:
    """Writes the report unless it shows this state of the store; returns its page.

    If a figure is missing, the page is written again the next time.
    """
    folder = report_folder(sweep.name)
    page = folder / "README.md"
    known = reported_answer(sweep, store, page, state)
    if known is not None:
        found.answer = known
        return page
    monitor.on_phase("writing the report")
    from nodebench.report.page import write_report_folder

    report = write_report_folder(sweep, store, folder)
    found.answer, found.undrawn = report.answer, report.undrawn
    if not report.undrawn:
        note_reported(sweep, store, page, state, report.answer)
    return page
