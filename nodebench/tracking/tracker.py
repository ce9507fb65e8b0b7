"""Mirrors the store in MLflow: one experiment per sweep, one run per trial.

The store is the source of truth. Entries in MLflow are derived from it, found by their tags, and
carry the history's own timestamps, so they can be rewritten at any time without duplicates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from nodebench.errors import StoreError
from nodebench.report.analysis.verdict import judge
from nodebench.spec import Trial
from nodebench.store import Result, Store, TrialFolder
from nodebench.store.locations import tracking_file, tracking_uri
from nodebench.store.mlflow_file import SYNCED_TAG, TRIAL_TAG, artifacts_of, is_lost
from nodebench.store.rows import Row
from nodebench.sweep import Sweep
from nodebench.sweep.labels import cut
from nodebench.tracking import conversion as forms
from nodebench.tracking.client import (
    Metric,
    Param,
    Run,
    RunTag,
    client_for,
    experiment_of,
    explained,
    has_artifact,
    is_deleted,
    runs_of,
)

REPORT_TAG = "nodebench.report"
OPEN = ("SCHEDULED", "RUNNING", "KILLED")  # of a trial that has not ended
LONGEST_NAME = 250  # characters of a run's name in MLflow's database
BATCH = 800  # metrics; MLflow takes 1,000 metrics, parameters and tags at once


class Tracker:
    """Writes the trials of one sweep to MLflow.

    Raises:
        TrackingError: if MLflow cannot be reached.
    """

    def __init__(self, sweep: Sweep, store: Store):
        self.sweep, self.store = sweep, store
        self.uri = tracking_uri(store)
        self._trials = {trial.id: trial for trial in sweep.trials}
        with explained(self.uri):
            self._client = client_for(store)
            self._experiment = self._experiment_id()
            found = self._one_each(runs_of(self._client, self._experiment))
        self._run_ids = {trial: str(run.info.run_id) for trial, run in found.items()}
        self._synced = {
            run.info.run_id: run.data.tags.get(SYNCED_TAG)
            for run in found.values()
            if not is_lost(run.info.artifact_uri)  # lost ones are written again
        }
        self._open = {t: str(r.info.status) for t, r in found.items() if r.info.status in OPEN}
        self._rows: dict[str, int] = {}
        self._seen: dict[str, object] = {}

    def update(self, trial_id: str, *, is_held: bool = False) -> None:
        """Brings a trial's run up to date with the store.

        While a process holds the trial, a recorded result is that of an earlier attempt.
        """
        folder = self.store.folder(trial_id)
        # Read first, so that the history read after it is complete.
        result = None if is_held else folder.result()
        history = folder.history()
        if not history and result is None:
            return
        state = forms.fingerprint(folder, self.sweep)
        run_id = self._run_ids.get(trial_id)
        if run_id is not None and self._synced.get(run_id) == state:
            return
        trial = self._trials[trial_id]
        logged = self._rows.get(run_id) if run_id else None
        params = [] if logged else [Param(p, str(value)) for p, value in trial.settings.items()]
        metrics = [metric for row in history[logged or 0 :] for metric in forms.epoch_metrics(row)]
        tags: list[RunTag] = []
        if result is not None:
            judged = judge(trial, self.sweep, self.store)
            metrics += forms.training_metrics(result) + forms.timing_metrics(folder)
            if run_id is not None:  # a new run is created with them, which is faster
                tags = [RunTag(key, value) for key, value in forms.result_tags(result).items()]
            if judged:
                metrics += forms.verdict_metrics(judged, forms.stamp_of_points(folder, result))
                tags.append(RunTag("verdict", judged.word))
            # Written with the last batch, so that an interrupted update is repeated.
            tags.append(RunTag(SYNCED_TAG, state))
        points = folder.evaluations()
        with explained(self.uri):
            run_id = self._opened(trial, history, result, is_held=is_held)
            if result is not None:
                self._end(trial_id, folder, result, points)
            self._log(run_id, params, metrics, tags)
        self._rows[run_id] = len(history)
        if result is not None:
            self._synced[run_id] = state

    def update_all(self) -> None:
        """Brings every trial of the sweep up to date.

        Raises:
            StoreError: if the store cannot be read.
            TrackingError: if MLflow cannot be reached.
        """
        try:
            for trial_id in self._trials:
                self._update_if_changed(trial_id)
            for trial_id, status in list(self._open.items()):
                self._correct_status(trial_id, status)
        except OSError as error:  # MLflow's own are TrackingErrors by now
            what = f"`{error.filename}` cannot be read: {error.strerror}"
            raise StoreError(f"{what}. MLflow gets what is left by `nodebench sync`") from error

    def _update_if_changed(self, trial_id: str) -> None:
        folder, seen = self.store.folder(trial_id), self._seen.get(trial_id)
        stamp = folder.stamp()
        if seen == (stamp, False):
            return
        is_held = folder.is_locked()
        if seen != (stamp, is_held):
            self.update(trial_id, is_held=is_held)
            self._seen[trial_id] = stamp, is_held

    def seek_artifacts(self) -> None:
        """Marks runs whose artifacts a server has lost to be written again.

        For a local file, `__init__` has already done so.

        Raises:
            TrackingError: if MLflow cannot be reached.
        """
        with explained(self.uri):
            for run_id in [run for run, state in self._synced.items() if state]:
                if not has_artifact(self._client, run_id, TrialFolder.result_file.name):
                    del self._synced[run_id]

    def log_report(self, folder: Path) -> None:
        """Logs a report's page, figures and data as artifacts of a separate run.

        Raises:
            TrackingError: if MLflow cannot be reached.
        """
        with explained(self.uri):
            named = f"tag.`{REPORT_TAG}` != ''"
            runs = list(self._client.search_runs([self._experiment], named, max_results=1))
            run = runs[0] if runs else self._new_report()
            state = hashlib.sha256((folder / "report.html").read_bytes()).hexdigest()[:16]
            if run.data.tags.get(SYNCED_TAG) != state:
                self._client.log_artifacts(run.info.run_id, str(folder))
                self._client.set_tag(run.info.run_id, SYNCED_TAG, state)
                self._client.set_terminated(run.info.run_id)

    def _new_report(self) -> Run:
        tags = {REPORT_TAG: self.sweep.name, "mlflow.note.content": self.sweep.about}
        return self._client.create_run(self._experiment, run_name="report", tags=tags)

    def run_ids(self) -> dict[str, str]:
        """MLflow's run id of each trial that has one."""
        return {trial: run for trial, run in self._run_ids.items() if trial in self._trials}

    def _one_each(self, runs: list[Run]) -> dict[str, Run]:
        """The run of each trial; if there are two, the complete one.

        The other one is deleted: a server was slow to create it, so that we gave up and asked for
        a run again.
        """
        found: dict[str, Run] = {}
        for run in sorted(runs, key=lambda run: (SYNCED_TAG not in run.data.tags, run.info.run_id)):
            if found.setdefault(run.data.tags[TRIAL_TAG], run) is not run:
                self._client.delete_run(run.info.run_id)
        return found

    def _correct_status(self, trial_id: str, shown: str) -> None:
        """Corrects the status of a run that is open in MLflow, by the state of its trial.

        It is RUNNING if a process holds the trial, otherwise the trial's outcome or KILLED. This
        includes trials no longer in the sweep. A trial without a folder is another machine's.
        """
        folder, run_id = self.store.folder(trial_id), self._run_ids[trial_id]
        if not folder.path.exists():
            return
        is_held = folder.is_locked()
        result = None if is_held else folder.result()
        status = "RUNNING" if is_held else "KILLED"
        with explained(self.uri):
            if result is not None:
                self._terminate(run_id, result)
                del self._open[trial_id]
            elif status != shown:
                self._client.update_run(run_id, status)
                self._open[trial_id] = status

    def _experiment_id(self) -> str:
        view = forms.view_columns(self.sweep)
        found = self._client.get_experiment_by_name(self.sweep.name)
        if found is not None:
            if is_deleted(found):  # in the MLflow UI, which is to show what the store has
                self._client.restore_experiment(found.experiment_id)
            if found.tags.get(forms.VIEW_TAG) != view:
                self._client.set_experiment_tag(found.experiment_id, forms.VIEW_TAG, view)
            return str(found.experiment_id)
        # A server chooses where artifacts lie; for a local file it would be the working folder.
        local = tracking_file(self.uri) is not None
        location = artifacts_of(self.store, self.sweep.name).as_uri() if local else None
        kind = {"mlflow.experimentKind": "custom_model_development"}  # sets what the UI shows first
        tags = kind | {forms.VIEW_TAG: view}
        return str(self._client.create_experiment(self.sweep.name, location, tags))

    def _create(self, trial: Trial, history: list[Row], result: Result | None) -> str:
        started = result.started if result else history[0]["time"] - history[0].get("epoch_s", 0)
        run = self._client.create_run(
            self._experiment,
            start_time=forms.milliseconds(started),
            run_name=cut(self.sweep.label(trial), LONGEST_NAME),
            tags={
                TRIAL_TAG: trial.id,
                "nodebench.recipe": trial.recipe_id,
                "nodebench.sweep": self.sweep.name,
                "mlflow.note.content": self.sweep.about,
                **(forms.result_tags(result) if result else {}),
            },
        )
        run_id = str(run.info.run_id)
        self._run_ids[trial.id], self._open[trial.id] = run_id, "RUNNING"
        return run_id

    def _opened(
        self, trial: Trial, history: list[Row], result: Result | None, *, is_held: bool
    ) -> str:
        """The trial's run, created if there is none; RUNNING if a process holds the trial."""
        run_id = self._run_ids.get(trial.id) or self._create(trial, history, result)
        if is_held and trial.id not in self._open:
            self._client.update_run(run_id, "RUNNING")
            self._open[trial.id] = "RUNNING"
        return run_id

    def _end(
        self, trial_id: str, folder: TrialFolder, result: Result, points: Sequence[Row]
    ) -> None:
        run_id = self._run_ids[trial_id]
        for path in folder.artifacts():
            self._client.log_artifact(run_id, str(path))
        self._client.log_text(run_id, self.sweep.text, f"{self.sweep.name}.yaml")
        if points:  # the MLflow UI shows CSV as a table
            self._client.log_text(run_id, forms.points_table(points), "evaluations.csv")
        self._terminate(run_id, result)
        self._open.pop(trial_id, None)

    def _terminate(self, run_id: str, result: Result) -> None:
        ended = forms.milliseconds(result.finished)
        self._client.set_terminated(run_id, forms.run_status(result), ended)

    def _log(
        self, run_id: str, params: list[Param], metrics: list[Metric], tags: list[RunTag]
    ) -> None:
        while len(metrics) > BATCH:
            self._client.log_batch(run_id, metrics=metrics[:BATCH])
            metrics = metrics[BATCH:]
        self._client.log_batch(run_id, metrics=metrics, params=params, tags=tags)


def page_of(sweep: Sweep, store: Store) -> str:
    """The URL path (after `/`) of MLflow's list of a sweep's runs, with what varies as columns.

    Raises:
        TrackingError: if MLflow has no such experiment, or cannot be reached.
    """
    with explained(tracking_uri(store)):
        experiment = experiment_of(client_for(store), sweep.name)
    return f"#/experiments/{experiment.experiment_id}/runs?viewStateShareKey={forms.VIEW}"
