"""The interface of trial runners, and the runner that trains one by one in this process.

torch is imported only where training happens: the driver of Ray workers starts faster without it.
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
"""The time between two checks of trials that another process holds."""


@dataclass(frozen=True)
class Backend:
    """Where trials run: on Ray's workers, or one after the other in this process if `inline`."""

    inline: bool | None = None
    """None: in this process if there is only one training, which needs no scheduler."""

    cpu: bool = False
    """Whether to use the CPU, whatever the sweep says."""

    fail_fast: bool = False
    """Whether the run ends at the first trial without a result."""

    def is_inline(self, trials: Sequence[Trial], options: RunOptions) -> bool:
        """Whether these trials run in this process.

        By default, a single trial or a single pack of seeds does, unless RAY_ADDRESS names a
        cluster or the sweep's search ends trials early, which need Ray.
        """
        if self.inline is not None:
            return self.inline
        if is_cluster_named() or options.stop:
            return False
        return len(packs(trials, options, slots(options.resources, gpus=1))) <= 1


class Monitor:
    """An observer of a run, which ignores everything: subclasses override what they show.

    Its methods are called in the driver, and should be quick.
    """

    def on_plan(self, trials: int, missing: int) -> None:
        """The plan has `trials` trials, of which `missing` are to be run."""

    def on_phase(self, phase: str) -> None:
        """A phase of some seconds begins before or after the trials, such as `starting Ray`."""

    def on_start(self, trial_id: str) -> None:
        """A trial begins or resumes."""

    def on_epoch(self, trial_id: str, row: Row) -> None:
        """A trial has completed an epoch."""

    def on_end(self, trial_id: str, problem: str | None) -> None:
        """A trial has a result in the store, or could not be run because of `problem`."""

    def on_tracking(self, problem: str | None) -> None:
        """Called in a thread: MLflow cannot be written because of `problem`; if None, it can."""


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
        """Runs the trials; with `fail_fast`, stops at the first without a result."""


def run_inline(
    trials: Sequence[Trial],
    store: Store,
    options: RunOptions,
    monitor: Monitor,
    *,
    fail_fast: bool = False,
) -> None:
    """Runs trials, or packs of them, one after the other in this process; needs no Ray.

    With `fail_fast`, stops after the first trial or pack without a result.
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
    with closing(pack.epochs()) as epochs:  # also if the monitor raises
        for trial_id, row in (pair for rows in epochs for pair in rows.items()):
            monitor.on_epoch(trial_id, row)
    for trial in pack.trials:
        monitor.on_end(trial.id, pack.problems.get(trial.id))


class _Waiting:
    """The trials that are still to be run; those that another process holds come last."""

    def __init__(self, trials: Sequence[Trial], store: Store):
        self.trials, self._store = list(trials), store

    def packs(self, options: RunOptions) -> Iterator[Sequence[Trial]]:
        """Packs of free trials, in order; ends once all that are left are held for TRIAL_WAIT_S."""
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
