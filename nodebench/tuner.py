"""Running a list of trials with Ray Tune, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nodebench.errors import ResourceError
from nodebench.identity import Trial
from nodebench.lock import abandoned, own_folder
from nodebench.packing import packs
from nodebench.places import cluster_address
from nodebench.planning import RunOptions
from nodebench.runner import Monitor, require_node
from nodebench.store import Store
from nodebench.sweepfile import Resources, Stop
from nodebench.trial_folder import Row
from nodebench.variables import variable

REPORT_EVERY_S = 0.5
"""Epochs that follow each other faster are not all reported to the driver; the store has them."""

INFRASTRUCTURE_RETRIES = 3
"""How often a trial is started again when its worker or node is lost. Results are not retried."""


def run_with_ray(
    trials: Sequence[Trial],
    store: Store,
    options: RunOptions,
    monitor: Monitor,
    *,
    fail_fast: bool = False,
) -> None:
    """Runs trials side by side on this machine, or on the cluster that RAY_ADDRESS names.

    With `fail_fast`, all are stopped when one has no result.

    Raises:
        ResourceError: if no node has what one trial asks for.
    """
    _quieten_ray()
    import ray

    # Two seconds of imports, beside the start of Ray's processes, which takes longer.
    threading.Thread(target=importlib.import_module, args=("ray.tune",)).start()
    with _ray_session(store.root) as storage:
        from ray import tune

        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        require_node(options.resources, [n["Resources"] for n in nodes if n["Alive"]])
        together = packs(trials, options, _slots(options.resources))
        # Those that another launch trains come last, so that no worker waits while others are free.
        together.sort(key=lambda pack: any(store.folder(t.id).is_locked() for t in pack))
        work = _Work({trial.id: trial for trial in trials}, store, options, list(sys.path))
        trainable = tune.with_resources(
            tune.with_parameters(_trainable(), work=work),
            {"cpu": options.resources.cpus, "gpu": options.resources.gpu_share},
        )
        tune.Tuner(
            trainable,
            param_space={"ids": tune.grid_search([[t.id for t in pack] for pack in together])},
            # Actors are reused because a new process costs seconds of imports.
            tune_config=tune.TuneConfig(
                reuse_actors=True, scheduler=_scheduler(options.stop, trials, store)
            ),
            run_config=tune.RunConfig(
                name="tune",
                stop=(stopper := _stopper(fail_fast)),
                storage_path=str(storage),
                verbose=0,
                # Trials keep checkpoints of their own, in the store.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=INFRASTRUCTURE_RETRIES),
                callbacks=[_callback(_DriverOnly(monitor), stopper)],
            ),
        ).fit()


def _slots(resources: Resources) -> int:
    """How many trials the cluster has place for."""
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    wanted = {"CPU": resources.cpus, "GPU": resources.gpu_share}
    return int(min(found.get(name, 0) // amount for name, amount in wanted.items() if amount))


def probe(root: Path) -> str:
    """Starts Ray, or joins the cluster that RAY_ADDRESS names; says what it has.

    Raises:
        ResourceError: if it cannot be started, or joined.
    """
    _quieten_ray()
    import ray

    try:
        with _ray_session(root):
            found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError, ValueError) as error:
        raise ResourceError(f"Ray cannot be started or joined ({error})") from error
    return ", ".join(f"{name} {found.get(name, 0):g}" for name in ("CPU", "GPU"))


SESSION = "session"


@contextlib.contextmanager
def _ray_session(root: Path) -> Iterator[Path]:
    """Ray, started here unless it runs already, and what it leaves on disk cleared away.

    Gives the folder for Tune's own files.
    """
    import ray

    for leftover in abandoned(root, "ray"):
        _remove(leftover)
    storage = own_folder(root, "ray")
    is_ours = not ray.is_initialized()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if is_ours:
        context = ray.init(
            address=cluster_address() or "local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own would abort
        if cluster_address() is None:
            storage.mkdir(parents=True, exist_ok=True)
            # Ray leaves its folder of logs and sockets behind: whoever clears up ours removes it.
            (storage / SESSION).symlink_to(vars(context)["address_info"]["session_dir"])
    try:
        yield storage
    finally:
        if is_ours:
            ray.shutdown()
        _remove(storage)


def _remove(storage: Path) -> None:
    """Removes a process's own folder, and that of the Ray which it had started."""
    session = storage / SESSION
    if session.is_symlink():
        shutil.rmtree(session.readlink(), ignore_errors=True)
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
        """A Tune actor. A step is some epochs of a pack of trials, or the whole of short ones.

        (A function that calls `tune.report` would run in a thread which Tune polls every 0.2 s.)
        """

        def setup(self, config: dict[str, Any], work: _Work) -> None:  # type: ignore[override]
            sys.path += [folder for folder in work.path if folder not in sys.path]
            self.work = work
            self.begin(config)

        def begin(self, config: dict[str, Any]) -> None:
            from nodebench.pack import Pack

            trials = [self.work.trials[trial_id] for trial_id in config["ids"]]
            self.pack = Pack(trials, self.work.store, self.work.options)
            self.epochs = self.pack.epochs()

        def step(self) -> dict[str, Any]:
            # A search decides after each epoch.
            until = time.monotonic() + (0.0 if self.work.options.stop else REPORT_EVERY_S)
            latest: dict[str, Row] = {}
            for rows in self.epochs:
                latest |= rows
                if time.monotonic() >= until:  # a search looks at its one trial's own row
                    return {**next(iter(rows.values())), "rows": latest}
            problems, has_results = self.pack.problems, self.pack.has_results
            return {"done": True, "rows": latest, "problems": problems, "has_results": has_results}

        def reset_config(self, config: dict[str, Any]) -> bool:
            self.cleanup()
            self.begin(config)
            return True

        def cleanup(self) -> None:
            self.epochs.close()

    return Worker


def _scheduler(stop: Stop | None, trials: Sequence[Trial], store: Store) -> Any:
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    class InOrder(FIFOScheduler):
        """Leaves the choice to Tune, which takes pending trials in order.

        Tune's own scheduler looks for the first of them among all that have ended, at each step.
        """

        def choose_trial_to_run(self, _controller: Any) -> None:
            return None

    if stop is None:
        return InOrder()  # type: ignore[no-untyped-call]

    class Asha(ASHAScheduler):
        """Leaves word of its decisions where workers find it."""

        def on_trial_result(self, controller: Any, trial: Any, result: Any) -> str:
            decision: str = super().on_trial_result(controller, trial, result)
            if decision == self.STOP:
                [trial_id] = trial.config["ids"]
                store.folder(trial_id).give_up()
            return decision

    data = trials[0].spec.data
    lengths = [trial.spec.train.epochs or 0 for trial in trials]
    return Asha(
        time_attr="epoch",
        metric=f"val_{data.metric}",
        mode="max" if data.higher_is_better else "min",
        max_t=max(stop.grace, max(lengths) - 1),  # at the end there is nothing left to save
        grace_period=stop.grace,
        reduction_factor=stop.reduction,
        stop_last_trials=False,  # they end by themselves
    )


def _stopper(fail_fast: bool) -> Any:
    from ray import tune

    class Stopper(tune.Stopper):
        """Ends everything, if asked to, once a trial has ended without a result."""

        failed = False

        def __call__(self, _trial_id: str, result: dict[str, Any]) -> bool:
            self.failed = self.failed or not result.get("has_results", True)
            return False

        def stop_all(self) -> bool:
            return fail_fast and self.failed

    return Stopper()


class _DriverOnly:
    """Holds a monitor where Tune, which pickles its callbacks for a restore, cannot follow."""

    monitor: Monitor

    def __init__(self, monitor: Monitor | None):
        if monitor:
            self.monitor = monitor

    def __reduce__(self) -> tuple[type[_DriverOnly], tuple[None]]:
        return _DriverOnly, (None,)


def _callback(held: _DriverOnly, stopper: Any) -> Any:
    from ray import tune

    class Forward(tune.Callback):
        """Tune's events, as the monitor's; a trial of Tune's is a pack of ours."""

        def on_trial_start(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
            for trial_id in trial.config["ids"]:
                held.monitor.on_start(trial_id)

        def on_trial_result(self, *, result: Any, **_: Any) -> None:  # type: ignore[override]
            for trial_id, row in result.get("rows", {}).items():
                held.monitor.on_epoch(trial_id, row)

        def on_trial_complete(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
            last = trial.last_result or {}
            # Without problems, its end is a search's decision, and not written yet.
            stopped = f"stopped by the search after epoch {last.get('epoch', 0)}"
            for trial_id in trial.config["ids"]:
                problem = last["problems"].get(trial_id) if "problems" in last else stopped
                held.monitor.on_end(trial_id, problem)

        def on_trial_error(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
            stopper.failed = True
            for trial_id in trial.config["ids"]:
                held.monitor.on_end(trial_id, "its worker was lost, or could not start")

    return Forward()


def _quieten_ray() -> None:
    """Ray reads these when it is imported or started."""
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR"):
        if variable(name) is None:  # Ray takes an empty one for the working folder
            os.environ.pop(name, None)
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0",
        RAY_CHDIR_TO_TRIAL_DIR="0",
        RAY_AIR_NEW_OUTPUT="0",
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="1",  # no GPU asked for: none visible
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_DISABLE_STRICT_METRIC_CHECKING="1",  # the last result of a trial says that it is done
        TUNE_DISABLE_SIGINT_HANDLER="1",  # Ctrl-C stops at once: checkpoints are written as we go
        TUNE_GLOBAL_CHECKPOINT_S="86400",  # Tune's own snapshots are of no use here
        TUNE_WARN_THRESHOLD_S="60",
    )
    logging.getLogger("ray").setLevel(logging.ERROR)
