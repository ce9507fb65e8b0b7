"""Runs a list of trials with Ray Tune, on this machine or on a cluster.

Only this module imports Ray. Ray reads its settings on import, so call `ray_cluster.quieten` first.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from nodebench.errors import ResourceError
from nodebench.execution.ray_cluster import (
    SESSION,
    TO_JOIN,
    address,
    one_line,
    quieten,
    remove_session,
    require_node,
    settings_here,
)
from nodebench.execution.ray_worker import PackRun, Work
from nodebench.execution.runner import Monitor, Runner
from nodebench.planning import RunOptions
from nodebench.planning.estimate import slots
from nodebench.planning.seed_packs import packs, rank
from nodebench.spec import Trial
from nodebench.store import Store
from nodebench.store.scratch import abandoned, claimed
from nodebench.sweep.file import Resources, Stop

INFRASTRUCTURE_RETRIES = 3
"""How often a trial is restarted if its worker or node is lost. Results are not retried."""


@contextlib.contextmanager
def workers(root: Path) -> Generator[Runner]:
    """A runner that trains in parallel, on this machine or the cluster that RAY_ADDRESS names.

    Raises:
        ResourceError: if Ray cannot be started or joined.
    """
    with session(root) as storage:
        yield partial(_run, storage)


def _run(
    storage: Path,
    trials: Sequence[Trial],
    store: Store,
    options: RunOptions,
    monitor: Monitor,
    *,
    fail_fast: bool = False,
) -> None:
    require_node(options.resources, _nodes())
    together = sorted(packs(trials, options, _slots(options.resources)), key=rank, reverse=True)
    # Packs that another launch trains come last, so that no worker waits while others are free.
    together.sort(key=lambda pack: any(store.folder(t.id).is_locked() for t in pack))
    work = Work({trial.id: trial for trial in trials}, store, options, list(sys.path))
    stopper = _FailFast(fail_fast)
    forward = _Forward(monitor, stopper, store)
    trainable = tune.with_resources(
        tune.with_parameters(Worker, work=work),
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
            stop=stopper,
            storage_path=str(storage),
            verbose=0,
            # Trials write their own checkpoints, to the store.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=INFRASTRUCTURE_RETRIES),
            callbacks=[forward],
        ),
    ).fit()
    forward.tell_given_up(is_last=True)


def _slots(resources: Resources) -> int:
    """How many trials the cluster can run at once."""
    found = _total()
    return slots(resources, gpus=found.get("GPU", 0), cpus=found.get("CPU", 0))


class Worker(tune.Trainable):
    """A Tune actor. A step is some epochs of a pack of trials, or all epochs of a short one.

    (A function that calls `tune.report` would run in a thread that Tune polls every 0.2 s.)
    """

    def setup(self, config: dict[str, Any], work: Work) -> None:  # pyrefly: ignore[bad-override]
        """Begins the first pack."""
        work.find_code()
        self.work, self.pack = work, PackRun(work, config["ids"])

    def step(self) -> dict[str, Any]:
        """Trains until the pack's next report, and returns it."""
        return self.pack.report()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins another pack in the same process."""
        self.pack.close()
        self.pack = PackRun(self.work, new_config["ids"])
        return True

    def cleanup(self) -> None:
        """Closes the pack."""
        self.pack.close()


class _InOrder(FIFOScheduler):
    """Starts trials in order.

    Tune's own scheduler searches all ended trials at each step. Without a choice, Tune takes any.
    """

    def __init__(self) -> None:
        super().__init__()
        self._started = 0
        """How many of the first trials have started."""

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first trial that neither has started nor has a worker; None if there is none."""
        trials = tune_controller.get_trials()
        while self._started < len(trials) and trials[self._started].status != TuneTrial.PENDING:
            self._started += 1
        for trial in trials[self._started :]:
            if trial.status == TuneTrial.PENDING and trial.temporary_state.ray_actor is None:
                return trial
        return None


class _Asha(ASHAScheduler):
    """ASHA, which also marks the trials that it stops in the store, for their workers."""

    def __init__(self, store: Store, **settings: Any):
        super().__init__(**settings)
        self._store = store

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
        decision: str = super().on_trial_result(tune_controller, trial, result)
        if decision == self.STOP:
            [trial_id] = trial.config["ids"]
            self._store.folder(trial_id).give_up()
        return decision


def _scheduler(stop: Stop | None, trials: Sequence[Trial], store: Store) -> TrialScheduler:
    if stop is None:
        return _InOrder()
    data = trials[0].spec.data
    lengths = [trial.spec.train.epochs or 0 for trial in trials]
    return _Asha(
        store,
        time_attr="epoch",
        metric=f"val_{data.metric}",
        mode="max" if data.higher_is_better else "min",
        max_t=max(stop.grace, max(lengths) - 1),  # at the end there is nothing left to save
        grace_period=stop.grace,
        reduction_factor=stop.reduction,
        stop_last_trials=False,  # they end by themselves
    )


class _FailFast(tune.Stopper):
    """Ends the run, if asked to, once a trial has ended without a result."""

    def __init__(self, is_asked: bool):
        self.is_asked, self.failed = is_asked, False

    def __call__(self, _trial_id: str, result: dict[str, Any]) -> bool:
        self.failed = self.failed or not result.get("has_results", True)
        return False

    def stop_all(self) -> bool:
        return self.is_asked and self.failed


class _Forward(tune.Callback):
    """Forwards Tune's events to the monitor; a trial of Tune is a pack of ours."""

    def __init__(self, monitor: Monitor, stopper: _FailFast, store: Store):
        self._monitor, self._stopper, self._store = monitor, stopper, store
        self._given_up: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        """Empty: Tune pickles its callbacks for a restore, in which a monitor cannot take part."""
        return {}

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        for trial_id in trial.config["ids"]:
            self._monitor.on_start(trial_id)

    def on_trial_result(self, *, result: Any, **_: Any) -> None:
        for trial_id, row in result.get("rows", {}).items():
            self._monitor.on_epoch(trial_id, row)

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        problems = (trial.last_result or {}).get("problems")
        if problems is None:  # a search has ended it; its worker will write the result
            self._given_up += trial.config["ids"]
            return
        for trial_id in trial.config["ids"]:
            self._monitor.on_end(trial_id, problems.get(trial_id))

    def on_step_end(self, **_: Any) -> None:
        self.tell_given_up()

    def tell_given_up(self, *, is_last: bool = False) -> None:
        """Tells the monitor about trials that a search has ended, once they have a result."""
        for trial_id in list(self._given_up):
            has_result = self._store.folder(trial_id).result() is not None
            if has_result or is_last:
                self._given_up.remove(trial_id)
                self._monitor.on_end(trial_id, None if has_result else "stopped by the search")

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        self._stopper.failed = True
        why = _why_a_worker_failed(trial)
        for trial_id in trial.config["ids"]:
            self._monitor.on_end(trial_id, why)


def _why_a_worker_failed(trial: Any) -> str:
    """The exception in the traceback that Tune wrote; if there is none, the worker was lost."""
    with contextlib.suppress(OSError, TypeError):  # a trial that was never placed has no file
        text = Path(trial.error_file).read_text(encoding="utf-8").rstrip()
        if ", line " in text:  # a traceback; a lost process leaves a sentence
            *_, last = text.splitlines()
            return f"its worker failed: {one_line(last)}"
    return "its worker was lost or could not start"


@contextlib.contextmanager
def session(root: Path) -> Generator[Path]:
    """Starts Ray or joins a cluster, unless Ray runs already; removes the files that Ray leaves.

    Yields the folder for Tune's own files, in `root`.

    Raises:
        ResourceError: if Ray cannot be started or joined.
    """
    quieten()
    for leftover in abandoned(root, "ray"):
        remove_session(leftover)
    is_ours = not ray.is_initialized()
    with claimed(root, "ray") as storage:
        try:
            if is_ours:
                _begin(storage)
            yield storage
        finally:
            if is_ours:
                ray.shutdown()
            remove_session(storage)


def ray_resources(root: Path) -> str:
    """Starts Ray, or joins the cluster of RAY_ADDRESS; returns its resources as text.

    Raises:
        ResourceError: if Ray cannot be started or joined.
    """
    with session(root):
        found = _total()
    return ", ".join(f"{name} {found.get(name, 0):g}" for name in ("CPU", "GPU"))


def _total() -> dict[str, float]:
    """The total resources of the running Ray."""
    found: dict[str, Any] = ray.cluster_resources()
    return found


def _nodes() -> list[dict[str, float]]:
    """The resources of each live node of the running Ray."""
    found: list[dict[str, Any]] = ray.nodes()
    return [node["Resources"] for node in found if node["Alive"]]


def _begin(storage: Path) -> None:
    """Starts or joins Ray; if started, links its session folder in `storage` for the cleanup."""
    where, on_sigterm = address(), signal.getsignal(signal.SIGTERM)
    how: dict[str, Any] = {"address": where} if where else settings_here()
    try:
        context = ray.init(log_to_driver=False, logging_level=logging.ERROR, **how)
    except Exception as error:  # Ray has no class for failures to start
        ray.shutdown()
        what, cure = "Ray cannot be started", "`--inline` runs the trials one by one without Ray"
        if where:
            what, cure = f"RAY_ADDRESS is `{where}`, which cannot be joined", TO_JOIN
        raise ResourceError(f"{what} ({one_line(str(error))}). {cure}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own handler would abort
    if where is None:
        # Ray leaves its folder of logs and sockets behind; `remove_session` follows this link.
        (storage / SESSION).symlink_to(vars(context)["address_info"]["session_dir"])
