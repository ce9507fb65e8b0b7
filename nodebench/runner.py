"""Running a list of trials: with Ray Tune, or one after the other in this process.

torch is imported where training happens: a driver of Ray's workers starts faster without it.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from nodebench.errors import ResourceError
from nodebench.plan import RunOptions
from nodebench.spec import Resources
from nodebench.store import Row, Store
from nodebench.sweep import Trial

REPORT_EVERY_S = 0.5
"""Epochs that follow each other faster are not all reported to the driver; the store has them."""

INFRASTRUCTURE_RETRIES = 3
"""How often a trial is started again when its worker or node is lost. Results are not retried."""


class Monitor(Protocol):
    """Whoever watches a run. Its methods are called in the driver, and should be quick."""

    def on_start(self, trial_id: str) -> None:
        """A trial begins, or goes on."""

    def on_epoch(self, trial_id: str, row: Row) -> None:
        """A trial has one more epoch."""

    def on_end(self, trial_id: str, problem: str | None) -> None:
        """A trial has a result in the store, or could not be run because of `problem`."""


def run_inline(
    trials: Sequence[Trial], store: Store, options: RunOptions, monitor: Monitor
) -> None:
    """Runs trials one after the other in this process; needs no Ray.

    Raises:
        ResourceError: if a GPU is asked for and there is none.
    """
    import torch

    from nodebench.trial import run_trial

    if options.resources.gpus and not torch.cuda.is_available():
        raise _no_gpu(options.resources, "this machine has none that torch can use")
    for trial in trials:
        monitor.on_start(trial.id)
        run_trial(trial, store, options, lambda row, i=trial.id: monitor.on_epoch(i, row))  # type: ignore[misc]
        monitor.on_end(trial.id, None)


def run_with_ray(
    trials: Sequence[Trial], store: Store, options: RunOptions, monitor: Monitor
) -> None:
    """Runs trials side by side on this machine, or on the cluster that RAY_ADDRESS names.

    Raises:
        ResourceError: if no node has what one trial asks for.
    """
    _quieten_ray()
    import ray
    from ray import tune

    storage = store.root / f".ray-{os.getpid()}"
    ours = not ray.is_initialized()
    if ours:
        ray.init(
            address=os.environ.get("RAY_ADDRESS", "local"),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        _require_resources(options.resources, _nodes())
        work = _Work({trial.id: trial for trial in trials}, store, options, list(sys.path))
        trainable = tune.with_resources(
            tune.with_parameters(_trainable(), work=work),
            {"cpu": options.resources.cpus, "gpu": options.resources.gpus},
        )
        tune.Tuner(
            trainable,
            param_space={"id": tune.grid_search([trial.id for trial in trials])},
            # Actors are reused because a new process costs seconds of imports (pitfalls: 10x).
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(storage),
                verbose=0,
                # Trials keep checkpoints of their own, in the store.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=INFRASTRUCTURE_RETRIES),
                callbacks=[_callback(_DriverOnly(monitor))],
            ),
        ).fit()
    finally:
        if ours:
            ray.shutdown()
        shutil.rmtree(storage, ignore_errors=True)


class _Work:
    """What every worker needs; shipped once."""

    def __init__(
        self, trials: dict[str, Trial], store: Store, options: RunOptions, path: list[str]
    ):
        self.trials, self.store, self.options, self.path = trials, store, options, path


def _trainable() -> Any:
    from ray import tune

    class Worker(tune.Trainable):
        """A Tune actor. A step is some epochs of a trial, or the whole of a short one.

        (A function that calls `tune.report` would run in a thread which Tune polls every 0.2 s.)
        """

        def setup(self, config: dict[str, Any], work: _Work) -> None:  # type: ignore[override]
            sys.path += [folder for folder in work.path if folder not in sys.path]
            self.work = work
            self.begin(config)

        def begin(self, config: dict[str, Any]) -> None:
            from nodebench.trial import epochs

            trial = self.work.trials[config["id"]]
            self.epochs = epochs(trial, self.work.store, self.work.options)

        def step(self) -> dict[str, Any]:
            until = time.monotonic() + REPORT_EVERY_S
            for row in self.epochs:
                if time.monotonic() >= until:
                    return row
            return {"done": True}

        def reset_config(self, config: dict[str, Any]) -> bool:
            self.cleanup()
            self.begin(config)
            return True

        def cleanup(self) -> None:
            self.epochs.close()

    return Worker


class _DriverOnly:
    """Holds a monitor where Tune, which pickles its callbacks for a restore, cannot follow."""

    def __init__(self, monitor: Monitor | None):
        self.monitor = monitor

    def __reduce__(self) -> tuple[type[_DriverOnly], tuple[None]]:
        return _DriverOnly, (None,)


def _callback(held: _DriverOnly) -> Any:
    from ray import tune

    class Forward(tune.Callback):
        """Tune's events, as the monitor's."""

        def on_trial_start(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
            if held.monitor:
                held.monitor.on_start(trial.config["id"])

        def on_trial_result(self, *, trial: Any, result: Any, **_: Any) -> None:  # type: ignore[override]
            if held.monitor and "epoch" in result:
                held.monitor.on_epoch(trial.config["id"], result)

        def on_trial_complete(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
            if held.monitor:
                held.monitor.on_end(trial.config["id"], None)

        def on_trial_error(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
            if held.monitor:
                held.monitor.on_end(trial.config["id"], "its worker was lost, or could not start")

    return Forward()


def _quieten_ray() -> None:
    """Ray reads these when it is imported or started."""
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0",
        RAY_CHDIR_TO_TRIAL_DIR="0",
        RAY_AIR_NEW_OUTPUT="0",
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="1",  # no GPU asked for: none visible
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_DISABLE_SIGINT_HANDLER="1",  # Ctrl-C stops at once: checkpoints are written as we go
        TUNE_GLOBAL_CHECKPOINT_S="86400",  # Tune's own snapshots are of no use here
        TUNE_WARN_THRESHOLD_S="60",
    )
    logging.getLogger("ray").setLevel(logging.ERROR)


def _nodes() -> list[dict[str, Any]]:
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return nodes


def _require_resources(resources: Resources, nodes: Sequence[dict[str, Any]]) -> None:
    """Refuses what Ray would wait for without end."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if resources.gpus and not any(node.get("GPU", 0) for node in alive):
        raise _no_gpu(resources, "no node has any")
    most = max(node.get("CPU", 0) for node in alive)
    if resources.cpus > most:
        raise ResourceError(
            f"`resources.cpus: {resources.cpus}` per trial, but the largest node has {most:g}. "
            f"Set `resources.cpus` to {most:g} or less"
        )


def _no_gpu(resources: Resources, found: str) -> ResourceError:
    return ResourceError(
        f"`resources.gpus: {resources.gpus:g}` asks for a GPU, and {found}. "
        "Run it elsewhere, or with `--cpu` to train on the CPU"
    )


Runner = Callable[[Sequence[Trial], Store, RunOptions, Monitor], None]
