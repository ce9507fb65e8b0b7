"""The interface of runners of trials, and the one that runs them one by one in this process.

torch is imported where training happens: a driver of Ray's workers starts faster without it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nodebench.execution.ray_cluster import is_cluster_named
from nodebench.planning import RunOptions
from nodebench.planning.estimate import slots
from nodebench.planning.seed_packs import packs
from nodebench.spec import Trial
from nodebench.store import Store
from nodebench.store.lock import holder
from nodebench.store.rows import Row
from nodebench.store.trial_folder import TRIAL_WAIT_S

if TYPE_CHECKING:
    from nodebench.execution.seed_pack import Pack

LOOK_AGAIN_S = 0.5
"""Between two looks at trials that another process holds."""


@dataclass(frozen=True)
class Backend:
    """Where trials run: on Ray's workers, or one after the other in this process if `inline`."""

    inline: bool | None = None
    """None: in this process if there is only one training, which needs no scheduler."""

    cpu: bool = False
    """Whether the CPU is used whatever the sweep says."""

    fail_fast: bool = False
    """Whether the first trial that has no result ends the run."""

    def is_inline(self, trials: Sequence[Trial], options: RunOptions) -> bool:
        """Whether these trials run in this process.

        If nothing was asked for, those do that are one trial, or one pack of seeds; Ray runs what
        RAY_ADDRESS sends to a cluster, and a search that ends trials early.
        """
        if self.inline is not None:
            return self.inline
        if is_cluster_named() or options.stop:
            return False
        return len(packs(trials, options, slots(options.resources, gpus=1))) <= 1


class Monitor(Protocol):
    """Whoever watches a run. Its methods are called in the driver, and should be quick."""

    def on_plan(self, trials: int, missing: int) -> None:
        """The plan has this many trials, of which `missing` are to be run."""

    def on_phase(self, phase: str) -> None:
        """Something that takes seconds begins before or after the trials: `starting Ray`."""

    def on_start(self, trial_id: str) -> None:
        """A trial begins or resumes."""

    def on_epoch(self, trial_id: str, row: Row) -> None:
        """A trial has one more epoch."""

    def on_end(self, trial_id: str, problem: str | None) -> None:
        """A trial has a result in the store, or could not be run because of `problem`."""

    def on_tracking(self, problem: str | None) -> None:
        """MLflow cannot be written because of `problem`, or can again. Called in a thread."""


class NullMonitor:
    """A monitor that ignores all that it is told."""

    def on_plan(self, trials: int, missing: int) -> None:
        """Ignores the plan."""

    def on_phase(self, phase: str) -> None:
        """Ignores a phase."""

    def on_start(self, trial_id: str) -> None:
        """Ignores that a trial begins."""

    def on_epoch(self, trial_id: str, row: Row) -> None:
        """Ignores an epoch."""

    def on_end(self, trial_id: str, problem: str | None) -> None:
        """Ignores that a trial ends."""

    def on_tracking(self, problem: str | None) -> None:
        """Ignores MLflow's state."""


class Runner(Protocol):
    """Runs a list of trials: `run_inline`, or Ray Tune's."""

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
    from nodebench.execution.seed_pack import Pack
    from nodebench.training.machine import torch_settings_kept

    waiting = _Waiting(trials, store)
    with torch_settings_kept():
        for together in waiting.packs(options):
            pack = Pack(together, store, options)
            _run_pack(pack, monitor)
            if fail_fast and not pack.has_results:
                return
    for trial in waiting.trials:
        monitor.on_end(trial.id, waiting.problem(trial))


def _run_pack(pack: Pack, monitor: Monitor) -> None:
    """Runs a pack of trials to its end."""
    for trial in pack.trials:
        monitor.on_start(trial.id)
    with closing(pack.epochs()) as epochs:  # also where a monitor raises
        for trial_id, row in (pair for rows in epochs for pair in rows.items()):
            monitor.on_epoch(trial_id, row)
    for trial in pack.trials:
        monitor.on_end(trial.id, pack.problems.get(trial.id))


class _Waiting:
    """Trials that are still to be run: those that another process holds come last."""

    def __init__(self, trials: Sequence[Trial], store: Store):
        self.trials, self._store = list(trials), store

    def packs(self, options: RunOptions) -> Iterator[Sequence[Trial]]:
        """The trials in their order as they are free; ends when all are held for TRIAL_WAIT_S."""
        deadline = time.monotonic() + TRIAL_WAIT_S
        while self.trials and time.monotonic() < deadline:
            held: list[Trial] = []
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
        who = holder(self._store.folder(trial.id).lock_file) or "another process"
        return f"the trial `{trial.id}` is held by {who}. Wait until it ends, or stop it"
