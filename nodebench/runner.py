"""What it takes to run a list of trials, and running it one after the other in this process.

torch is imported where training happens: a driver of Ray's workers starts faster without it.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from nodebench.allowance import cpu_count
from nodebench.cluster import address, require_answer, temporary_folder
from nodebench.errors import ResourceError
from nodebench.identity import Trial
from nodebench.lock import holder
from nodebench.packing import packs
from nodebench.planning import RunOptions
from nodebench.store import Store
from nodebench.sweepfile import Resources
from nodebench.trial_folder import TRIAL_WAIT_S, Row

LOOK_AGAIN_S = 0.5
"""Between two looks at trials that another process holds."""


class Monitor(Protocol):
    """Whoever watches a run. Its methods are called in the driver, and should be quick."""

    def on_plan(self, trials: int, missing: int) -> None:
        """So many trials were planned, of which so many are to be run."""

    def on_start(self, trial_id: str) -> None:
        """A trial begins, or goes on."""

    def on_epoch(self, trial_id: str, row: Row) -> None:
        """A trial has one more epoch."""

    def on_end(self, trial_id: str, problem: str | None) -> None:
        """A trial has a result in the store, or could not be run because of `problem`."""

    def on_tracking(self, problem: str | None) -> None:
        """MLflow cannot be written because of `problem`, or can again. Called in a thread."""


class Unwatched:
    """A monitor that looks away."""

    def on_plan(self, trials: int, missing: int) -> None:
        """Nothing."""

    def on_start(self, trial_id: str) -> None:
        """Nothing."""

    def on_epoch(self, trial_id: str, row: Row) -> None:
        """Nothing."""

    def on_end(self, trial_id: str, problem: str | None) -> None:
        """Nothing."""

    def on_tracking(self, problem: str | None) -> None:
        """Nothing."""


class Runner(Protocol):
    """What runs a list of trials."""

    def __call__(
        self,
        trials: Sequence[Trial],
        store: Store,
        options: RunOptions,
        monitor: Monitor,
        *,
        fail_fast: bool = False,
    ) -> None:
        """Runs them; with `fail_fast`, until one has no result."""


def require(options: RunOptions, *, inline: bool) -> None:
    """Refuses, before anything has been started, what this machine cannot give.

    Raises:
        ResourceError: if there is no GPU or too few CPUs here, Ray is needed and not there or has
            no place for its sockets, or RAY_ADDRESS names no cluster, or one that does not answer.
    """
    resources = options.resources
    if not inline and importlib.util.find_spec("ray") is None:
        raise ResourceError("Ray is not installed: pip install 'ray[tune]', or add `--inline`")
    where = None if inline else address()
    if where:
        require_answer(where)
        return
    if not inline:
        temporary_folder()
    require_node(resources, [{"CPU": cpu_count(), "GPU": _gpus(resources)}])


def run_inline(
    trials: Sequence[Trial],
    store: Store,
    options: RunOptions,
    monitor: Monitor,
    *,
    fail_fast: bool = False,
) -> None:
    """Runs trials, or packs of them, one after the other in this process; needs no Ray.

    With `fail_fast`, the first trial that has no result is the last to be run.
    """
    from nodebench.pack import Pack

    waiting = _Waiting(trials, store)
    for together in waiting.packs(options):
        pack = Pack(together, store, options)
        for trial in together:
            monitor.on_start(trial.id)
        for rows in pack.epochs():
            for trial_id, row in rows.items():
                monitor.on_epoch(trial_id, row)
        for trial in together:
            monitor.on_end(trial.id, pack.problems.get(trial.id))
        if fail_fast and not pack.has_results:
            return
    for trial in waiting.trials:
        monitor.on_end(trial.id, waiting.problem(trial))


class _Waiting:
    """Trials that are still to be run: those that another process holds come last."""

    def __init__(self, trials: Sequence[Trial], store: Store):
        self.trials, self._store = list(trials), store

    def packs(self, options: RunOptions) -> Iterator[Sequence[Trial]]:
        """The trials in their order as they are free; ends when all are held for TRIAL_WAIT_S."""
        deadline = time.monotonic() + TRIAL_WAIT_S
        while self.trials and time.monotonic() < deadline:
            held = []
            for pack in packs(self.trials, options, slots=1):
                busy = [trial for trial in pack if self._store.folder(trial.id).is_locked()]
                held += busy
                if free := [trial for trial in pack if trial not in busy]:
                    yield free
                    deadline = time.monotonic() + TRIAL_WAIT_S
            self.trials = held
            if held:
                time.sleep(LOOK_AGAIN_S)

    def problem(self, trial: Trial) -> str:
        """Why a trial could not be run."""
        lock = self._store.folder(trial.id).path / "lock"
        who = holder(lock) or "another process"
        return f"the trial `{trial.id}` is held by {who}. Wait until it ends, or stop it"


def _gpus(resources: Resources) -> int:
    if not resources.gpu_share:
        return 0  # not asked for: not worth the import
    import torch

    return torch.cuda.device_count()


def require_node(resources: Resources, nodes: Sequence[Mapping[str, float]]) -> None:
    """Refuses what Ray would wait for without end: a trial that fits no node."""
    most_gpus = max((node.get("GPU", 0) for node in nodes), default=0)
    if resources.gpu_share > most_gpus:
        raise ResourceError(
            f"`resources.gpus: {resources.gpus}` per trial, but the largest node has "
            f"{most_gpus:g}. `--cpu` trains on the CPU, and `--small` takes a sweep's small form "
            "if it has one"
        )
    fitting = [node for node in nodes if node.get("GPU", 0) >= resources.gpu_share]
    most = max((node.get("CPU", 0) for node in fitting), default=0)
    if resources.cpus > most:
        raise ResourceError(
            f"`resources.cpus: {resources.cpus}` per trial, but the largest node that fits has "
            f"{most:g}. Set `resources.cpus` to {most:g} or less"
        )
