"""A sweep of few trials, and what MLflow holds of it."""

from collections import Counter

from mlflow import MlflowClient

from nodebench.store.locations import tracking_uri
from nodebench.tracking.client import TRIAL_TAG
from tests.support.tiny_sweeps import tiny


def of_three_trials(folder):
    """A sweep of two solvers and two seeds."""
    evaluate = {"methods": ["euler"], "steps": [2, 4]}
    return tiny(folder, seeds=[0, 1], evaluate=evaluate, grid={"solver.steps": [2, 3]})


def runs(sweep, store):
    client = MlflowClient(tracking_uri(store))
    experiment = client.get_experiment_by_name(sweep.name)
    return client, client.search_runs([experiment.experiment_id])


def points(sweep, store):
    """Every metric point in MLflow: (trial, name, step, time, value), with its multiplicity."""
    client, found = runs(sweep, store)
    return Counter(
        (run.data.tags[TRIAL_TAG], name, point.step, point.timestamp, point.value)
        for run in found
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    )
