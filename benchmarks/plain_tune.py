"""Trivial trials by Ray Tune and MLflow alone: `python -m benchmarks.plain_tune FOLDER COUNT`.

What a careful user would write without nodebench: actors reused, one MLflow client in the driver,
the same parameters, metrics, tags and files for each run as nodebench gives them.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from ray import tune

from benchmarks.sweeps import TRIVIAL
from nodebench.data.load import load_data
from nodebench.models.build import build, parameter_count
from nodebench.spec import TrialSpec
from nodebench.spec.settings import flatten
from nodebench.training.loop import new_state, train
from nodebench.training.tasks.table import task_for

METRICS = [
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "lr",
    "nfe_forward",
    "nfe_backward",
    "iteration",
    "epoch_s",
    "peak_memory_bytes",
    "parameters",
]
FILES = ("trial.json", "history.jsonl", "result.json", "log.txt")


class Worker(tune.Trainable):
    """One step trains; the row of its epoch is the result."""

    def setup(self, config: dict[str, Any]) -> None:
        self.config = config

    def step(self) -> dict[str, Any]:
        torch.set_num_threads(1)
        spec = TrialSpec.model_validate({**TRIVIAL, "seed": self.config["seed"]})
        torch.manual_seed(spec.seed)
        data = load_data(spec, Path())
        model = build(spec, data)
        state = new_state(model, spec)
        (row,) = train(state, task_for(data, spec), spec)
        return {**row, "parameters": parameter_count(model), "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config = new_config
        return True


class Log(tune.Callback):
    """A run for each trial that has ended."""

    def __init__(self, folder: Path):
        self.folder = folder

    def setup(self, **_: Any) -> None:
        self.client = MlflowClient(f"sqlite:///{self.folder}/mlflow.db")
        self.experiment = self.client.create_experiment(
            "bench", artifact_location=(self.folder / "artifacts").as_uri()
        )
        for name in FILES:
            (self.folder / name).write_text("1234567890" * 100)

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        result, now = trial.last_result, round(time.time() * 1000)
        spec = TrialSpec.model_validate({**TRIVIAL, "seed": trial.config["seed"]})
        tags = {f"tag{i}": "value" for i in range(16)}
        run = self.client.create_run(self.experiment, start_time=now, tags=tags)
        metrics = [
            Metric(name, float(value), now, 1) for name, value in result.items() if name in METRICS
        ]
        params = [Param(path, str(value)) for path, value in flatten(spec).items()]
        self.client.log_batch(run.info.run_id, metrics, params, [RunTag("state", "done")])
        for name in FILES:
            self.client.log_artifact(run.info.run_id, str(self.folder / name))
        self.client.log_text(run.info.run_id, "sweep", "bench.yaml")
        self.client.set_terminated(run.info.run_id)


def main() -> None:
    """Runs them."""
    folder, count = Path(sys.argv[1]).resolve(), int(sys.argv[2])
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1")
    tune.Tuner(
        tune.with_resources(Worker, {"cpu": 1}),
        param_space={"seed": tune.grid_search(list(range(count)))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            verbose=0,
            callbacks=[Log(folder)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()


if __name__ == "__main__":
    main()
