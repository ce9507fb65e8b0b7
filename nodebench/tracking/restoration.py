"""A store restored from MLflow, for a report when the original store is not available."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nodebench.errors import TrackingError, counted
from nodebench.store import Store, TrialFolder
from nodebench.store.locations import tracking_uri
from nodebench.store.mlflow_file import SYNCED_TAG, TRIAL_TAG
from nodebench.sweep import Sweep
from nodebench.tracking.client import (
    ENDED,
    MlflowClient,
    Run,
    client_for,
    experiment_of,
    explained,
    has_artifact,
    runs_of,
)


@contextmanager
def restored_store(sweep: Sweep, source: Store) -> Generator[Store]:
    """A temporary store of a sweep's trials, made from MLflow's artifacts.

    `source` is the store whose folder contains the default MLflow file.

    Raises:
        TrackingError: if MLflow has no such experiment, lacks artifacts, or cannot be reached.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        with explained(tracking_uri(source)):
            _download(sweep, client_for(source), store)
        yield store


def _download(sweep: Sweep, client: MlflowClient, store: Store) -> None:
    experiment = experiment_of(client, sweep.name)
    planned = {trial.id for trial in sweep.trials}
    found = runs_of(client, str(experiment.experiment_id))
    runs = {r.data.tags[TRIAL_TAG]: r for r in found if r.data.tags[TRIAL_TAG] in planned}
    _require_artifacts(client, sweep, list(runs.values()))
    for trial_id, run in runs.items():
        folder = store.folder(trial_id).path
        folder.mkdir(parents=True, exist_ok=True)
        client.download_artifacts(run.info.run_id, "", str(folder))


def _require_artifacts(client: MlflowClient, sweep: Sweep, runs: Sequence[Run]) -> None:
    """Refuses a report without runs, or with finished runs whose artifacts are missing."""
    if not runs:
        raise TrackingError(
            f"MLflow at `{client.tracking_uri}` has no run of a trial that `{sweep.name}` plans. "
            "If the store is available, `nodebench sync SWEEP` writes them"
        )
    ended = [run for run in runs if run.info.status in ENDED or SYNCED_TAG in run.data.tags]
    result = TrialFolder.result_file.name
    lost = [run for run in ended if not has_artifact(client, run.info.run_id, result)]
    if lost:
        gone = counted(len(lost), "finished run")
        raise TrackingError(
            f"MLflow at `{client.tracking_uri}` has {gone} of `{sweep.name}` "
            f"whose artifacts are missing, such as `{lost[0].info.artifact_uri}`. Restore them; "
            "or, if the store is available, `nodebench sync SWEEP` writes them again"
        )
