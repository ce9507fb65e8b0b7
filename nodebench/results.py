"""What was found, for use from Python: verdicts, MLflow, the report, trained models."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from nodebench.places import data_root, default_store
from nodebench.plan import remember
from nodebench.store import Store
from nodebench.sweep import Sweep
from nodebench.verdict import Verdict, judge

if TYPE_CHECKING:
    from torch import nn


def verdicts(sweep: Sweep, store: Store) -> dict[str, Verdict]:
    """Whether each trained model is still an ODE, by trial id, as far as it has been evaluated."""
    found = {trial.id: judge(trial, sweep, store) for trial in sweep.trials}
    return {trial: judged for trial, judged in found.items() if judged}


def sync(sweep: Sweep, store: Store) -> dict[str, str]:
    """Writes to MLflow what it lacks of a sweep; returns the run id of each trial.

    Raises:
        TrackingError: if MLflow cannot be reached.
    """
    from nodebench.tracking import Tracker

    remember(sweep, store)
    with store.tracking_lock(sweep.name):
        tracker = Tracker(sweep, store)
        tracker.update_all()
        return tracker.run_ids()


def report(
    sweep: Sweep, store: Store, folder: Path | None = None, *, from_mlflow: bool = False
) -> Path:
    """Writes a sweep's report, by default to `reports/<sweep>/`; returns its page.

    With `from_mlflow`, from MLflow's artifacts alone.
    """
    from nodebench.report.page import write_report

    target = folder or Path("reports") / sweep.name
    if not from_mlflow:
        return write_report(sweep, store, target)
    from nodebench.tracking import restore

    with tempfile.TemporaryDirectory() as temporary:
        copy = Store(Path(temporary))
        restore(sweep, copy, source=store)
        return write_report(sweep, copy, target)


def load_model(trial_id: str, store: Store | None = None) -> nn.Module:
    """A trained network, by its trial's id or the start of it: see `plan`, or `results.csv`.

    It is in evaluation mode, on the CPU; the store is by default that of NODEBENCH_RUNS. The
    trial's data set must be at hand, since it says how large inputs and outputs are.

    Raises:
        StoreError: if there is no such trial, or its training has not finished.
        DataError: if its data set is missing or damaged.
    """
    from nodebench.trial import trained_model

    return trained_model((store or default_store()).find(trial_id), data_root())
