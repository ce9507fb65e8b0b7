"""MLflow as the public face of the store: one experiment a sweep, one run a trial.

The store is the source. What is written here is derived from it, found by tags, carries the
history's own timestamps, and can therefore be written again at any time without doubling.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from nodebench import mlflow_forms as forms
from nodebench.errors import TrackingError
from nodebench.identity import Trial
from nodebench.label import cut
from nodebench.mlflow_access import (
    TRIAL_TAG,
    Metric,
    MlflowClient,
    Param,
    Run,
    RunTag,
    explained,
    runs_of,
)  # fmt: skip
from nodebench.places import tracking_uri
from nodebench.store import Store
from nodebench.sweep import Sweep
from nodebench.trial_folder import Result, Row, TrialFolder
from nodebench.verdict import judge

SYNCED_TAG = "nodebench.synced"
REPORT_TAG = "nodebench.report"
OPEN = ("SCHEDULED", "RUNNING", "KILLED")  # of a trial that has not come to its end
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
            self._client = MlflowClient(self.uri)
            self._experiment = self._experiment_id()
            found = self._one_each(runs_of(self._client, self._experiment))
        self._run_ids = {trial: str(run.info.run_id) for trial, run in found.items()}
        self._synced = {r.info.run_id: r.data.tags.get(SYNCED_TAG) for r in found.values()}
        self._open = {t: str(r.info.status) for t, r in found.items() if r.info.status in OPEN}
        self._rows: dict[str, int] = {}
        self._seen: dict[str, object] = {}

    def update(self, trial_id: str) -> None:
        """Brings a trial's run up to what the store has."""
        folder = self.store.folder(trial_id)
        result = folder.result()  # first: the history that is read after it is the whole one
        history = folder.history()
        if not history and result is None:
            return
        state = forms.fingerprint(folder, self.sweep)
        run_id = self._run_ids.get(trial_id)
        if run_id is not None and self._synced.get(run_id) == state:
            return
        trial = self._trials[trial_id]
        is_new = run_id is None
        if run_id is None:
            run_id = self._create(trial, history, result)
        logged = self._rows.get(run_id)
        params = [] if logged else [Param(p, str(value)) for p, value in trial.settings.items()]
        metrics = [metric for row in history[logged or 0 :] for metric in forms.metrics(row)]
        tags = []
        if result is not None:
            judged = judge(trial, self.sweep, self.store)
            metrics += forms.totals(result) + forms.timing_metrics(folder)
            if judged:
                metrics += forms.verdict_metrics(judged, forms.stamp_of_points(folder, result))
            if not is_new:  # else they came with it, which is quicker
                tags = [RunTag(key, value) for key, value in forms.tags(result).items()]
            if judged:
                tags.append(RunTag("verdict", judged.word))
            # With the last batch, so that whatever was interrupted before is done again.
            tags.append(RunTag(SYNCED_TAG, state))
            self._end(trial_id, folder, result)
        self._log(run_id, params, metrics, tags)
        self._rows[run_id] = len(history)
        if result is not None:
            self._synced[run_id] = state

    def update_all(self) -> None:
        """Brings every trial of the sweep up to date.

        Raises:
            TrackingError: if MLflow cannot be reached.
        """
        with explained(self.uri):
            for trial_id in self._trials:
                stamp = self.store.folder(trial_id).stamp()
                if self._seen.get(trial_id) != stamp:
                    self.update(trial_id)
                    self._seen[trial_id] = stamp
            for trial_id, status in list(self._open.items()):
                self._correct_status(trial_id, status)
        self.store.note_runs(self.sweep.name, self.run_ids())

    def log_report(self, folder: Path) -> None:
        """Keeps a report's page, figures and data as artifacts of a run of their own.

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
        """The run of each trial; of two, the one that is complete.

        The other is deleted: it is the work of a server that was slow to create a run, which we
        gave up and asked for again.
        """
        found: dict[str, Run] = {}
        for run in sorted(runs, key=lambda run: (SYNCED_TAG not in run.data.tags, run.info.run_id)):
            if found.setdefault(run.data.tags[TRIAL_TAG], run) is not run:
                self._client.delete_run(run.info.run_id)
        return found

    def _correct_status(self, trial_id: str, shown: str) -> None:
        """Sets the status of a run that has not ended: killed, unless a process trains it.

        Also of one that is no longer in the sweep. One that this store has no folder of is
        another machine's.
        """
        folder, run_id = self.store.folder(trial_id), self._run_ids[trial_id]
        if not folder.path.exists():
            return
        if result := folder.result():
            self._client.set_terminated(
                run_id, forms.ending(result), forms.milliseconds(result.finished)
            )
            del self._open[trial_id]
            return
        status = "RUNNING" if folder.is_locked() else "KILLED"
        if status != shown:
            self._client.update_run(run_id, status)
            self._open[trial_id] = status

    def _experiment_id(self) -> str:
        view = forms.view(self.sweep)
        found = self._client.get_experiment_by_name(self.sweep.name)
        if found is not None:
            if found.tags.get(forms.VIEW_TAG) != view:
                self._client.set_experiment_tag(found.experiment_id, forms.VIEW_TAG, view)
            return str(found.experiment_id)
        # A server places artifacts itself; the local file would place them in the working folder.
        local = self.uri.startswith("sqlite:")
        location = (self.store.root / "mlartifacts" / self.sweep.name).as_uri() if local else None
        kind = {"mlflow.experimentKind": "custom_model_development"}  # what its pages show first
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
                **(forms.tags(result) if result else {}),
            },
        )
        run_id = str(run.info.run_id)
        self._run_ids[trial.id], self._open[trial.id] = run_id, "RUNNING"
        return run_id

    def _end(self, trial_id: str, folder: TrialFolder, result: Result) -> None:
        run_id = self._run_ids[trial_id]
        for path in folder.artifacts():
            self._client.log_artifact(run_id, str(path))
        self._client.log_text(run_id, self.sweep.text, f"{self.sweep.name}.yaml")
        if rows := folder.evaluations():  # MLflow's pages show CSV as a table
            self._client.log_text(run_id, forms.table(rows), "evaluations.csv")
        self._client.set_terminated(
            run_id, forms.ending(result), forms.milliseconds(result.finished)
        )
        self._open.pop(trial_id, None)

    def _log(
        self, run_id: str, params: list[Param], metrics: list[Metric], tags: list[RunTag]
    ) -> None:
        while len(metrics) > BATCH:
            self._client.log_batch(run_id, metrics=metrics[:BATCH])
            metrics = metrics[BATCH:]
        self._client.log_batch(run_id, metrics=metrics, params=params, tags=tags)


def restore(sweep: Sweep, store: Store, source: Store) -> None:
    """Fills an empty `store` with a sweep's trials from MLflow's artifacts.

    `source` is the store beside which the default MLflow file lies.

    Raises:
        TrackingError: if MLflow has no such experiment, or cannot be reached.
    """
    uri = tracking_uri(source)
    with explained(uri):
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(sweep.name)
        if experiment is None:
            raise TrackingError(f"MLflow at `{uri}` has no experiment `{sweep.name}`")
        planned = {trial.id for trial in sweep.trials}
        found = runs_of(client, str(experiment.experiment_id))
        ids = {run.data.tags[TRIAL_TAG]: str(run.info.run_id) for run in found}
        store.note_runs(sweep.name, {trial: run for trial, run in ids.items() if trial in planned})
        for run in found:
            if run.data.tags[TRIAL_TAG] not in planned:
                continue
            folder = store.folder(run.data.tags[TRIAL_TAG]).path
            folder.mkdir(parents=True, exist_ok=True)
            client.download_artifacts(run.info.run_id, "", str(folder))


def page_of(sweep: Sweep, store: Store) -> str:
    """Where MLflow's pages list a sweep's runs, with what varies as columns; the part after `/`.

    Raises:
        TrackingError: if MLflow has no such experiment, or cannot be reached.
    """
    uri = tracking_uri(store)
    with explained(uri):
        experiment = MlflowClient(uri).get_experiment_by_name(sweep.name)
    if experiment is None:
        raise TrackingError(f"MLflow at `{uri}` has no experiment `{sweep.name}`: run it first")
    return f"#/experiments/{experiment.experiment_id}/runs?viewStateShareKey={forms.VIEW}"
