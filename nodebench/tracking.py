"""MLflow as the public face of the store: one experiment a sweep, one run a trial.

The store is the source. What is written here is derived from it, found by tags, carries the
history's own timestamps, and can therefore be written again at any time without doubling.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nodebench.errors import TrackingError
from nodebench.identity import Trial
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
from nodebench.trial_folder import FINISHED, SHOWN, Result, Row, TrialFolder
from nodebench.verdict import Verdict, judge

SYNCED_TAG = "nodebench.synced"
REPORT_TAG = "nodebench.report"
OPEN = ("SCHEDULED", "RUNNING", "KILLED")  # of a trial that has not come to its end
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
        state = _fingerprint(folder, self.sweep)
        run_id = self._run_ids.get(trial_id)
        if run_id is not None and self._synced.get(run_id) == state:
            return
        trial = self._trials[trial_id]
        is_new = run_id is None
        if run_id is None:
            run_id = self._create(trial, history, result)
        logged = self._rows.get(run_id)
        params = [] if logged else [Param(p, str(value)) for p, value in trial.settings.items()]
        metrics = [metric for row in history[logged or 0 :] for metric in _metrics(row)]
        tags = []
        if result is not None:
            judged = judge(trial, self.sweep, self.store)
            metrics += _totals(result) + _timing_metrics(folder)
            if judged:
                metrics += _verdict_metrics(judged, _stamp_of_points(folder, result))
            if not is_new:  # else they came with it, which is quicker
                tags = [RunTag(key, value) for key, value in _tags(result).items()]
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
            self._client.set_terminated(run_id, _ending(result), _stamp(result.finished))
            del self._open[trial_id]
            return
        status = "RUNNING" if folder.is_locked() else "KILLED"
        if status != shown:
            self._client.update_run(run_id, status)
            self._open[trial_id] = status

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self.sweep.name)
        if found is not None:
            return str(found.experiment_id)
        # A server places artifacts itself; the local file would place them in the working folder.
        local = self.uri.startswith("sqlite:")
        location = (self.store.root / "mlartifacts" / self.sweep.name).as_uri() if local else None
        kind = {"mlflow.experimentKind": "custom_model_development"}  # what its pages show first
        return str(self._client.create_experiment(self.sweep.name, location, kind))

    def _create(self, trial: Trial, history: list[Row], result: Result | None) -> str:
        started = result.started if result else history[0]["time"] - history[0].get("epoch_s", 0)
        run = self._client.create_run(
            self._experiment,
            start_time=_stamp(started),
            run_name=self.sweep.label(trial),
            tags={
                TRIAL_TAG: trial.id,
                "nodebench.recipe": trial.recipe_id,
                "nodebench.sweep": self.sweep.name,
                "mlflow.note.content": self.sweep.about,
                **(_tags(result) if result else {}),
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
            self._client.log_text(run_id, _csv(rows), "evaluations.csv")
        self._client.set_terminated(run_id, _ending(result), _stamp(result.finished))
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


def _metrics(row: Row) -> Iterable[Metric]:
    stamp, epoch = _stamp(row["time"]), row["epoch"]
    names = (name for name in row if name not in ("time", "epoch"))
    return (Metric(name, float(row[name]), stamp, epoch) for name in names)


def _totals(result: Result) -> list[Metric]:
    """What stands for the whole training rather than for an epoch."""
    stamp = _stamp(result.finished)
    return [
        Metric(name, float(value), stamp, 0)
        for name, value in result.summary.items()
        if name.startswith(("best_", "parameters"))
    ]


def _ending(result: Result) -> str:
    """MLflow's word for how a trial ended."""
    return "FINISHED" if result.outcome == FINISHED else "FAILED"


def _stamp(seconds: float) -> int:
    """MLflow's milliseconds."""
    return round(seconds * 1000)


def _tags(result: Result) -> dict[str, str]:
    here: dict[str, Any] = result.environments[-1] if result.environments else {}
    tags = {
        "outcome": result.outcome,
        "reason": result.reason,
        **{f"nodebench.{name}": str(value) for name, value in here.items()},
        **{f"nodebench.{name}": value for name, value in result.tags.items()},
    }
    if len(result.environments) > 1:
        tags["nodebench.mixed_environments"] = "true"
    return tags


def _stamp_of_points(folder: TrialFolder, result: Result) -> int:
    """When a verdict became what it is, since MLflow shows the latest of several values."""
    points = folder.path / "evaluations.json"
    return _stamp(max(result.finished, points.stat().st_mtime))


def _verdict_metrics(judged: Verdict, stamp: int) -> list[Metric]:
    """The numbers behind a verdict."""
    return [Metric(f"verdict_{name}", value, stamp, 0) for name, value in judged.numbers.items()]


def _timing_metrics(folder: TrialFolder) -> list[Metric]:
    """Seconds of a step and of an epoch, alone on the machine that was timed last."""
    newest = max(folder.timings(), key=lambda row: row["time"], default={})
    names = [name for name in ("step_s", "timed_epoch_s") if name in newest]
    return [Metric(name, newest[name], _stamp(newest["time"]), 0) for name in names]


def _csv(rows: Sequence[Row]) -> str:
    """Evaluated points as a table: what was asked for, under which solver, what came out."""
    flat = [
        {
            **row["point"],
            **{f"solver.{name}": value for name, value in row["solver"].items()},
            **{name: value for name, value in row.items() if name not in ("point", "solver")},
        }
        for row in rows
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in flat for name in row)))
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _fingerprint(folder: TrialFolder, sweep: Sweep) -> str:
    """Changes whenever something that MLflow shows of a finished trial does."""
    # A verdict follows from what the sweep evaluates, and from its margin.
    digest = hashlib.sha256(f"{sweep.margin} {sweep.evaluate}".encode())
    for name in SHOWN:
        path: Path = folder.path / name
        digest.update(path.read_bytes() if path.exists() else b"-")
    return digest.hexdigest()[:16]
