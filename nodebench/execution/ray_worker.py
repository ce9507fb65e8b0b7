"""What a worker of Ray does: trains a pack of trials, and reports their epochs.

Ray itself is not imported here, nor is torch before a pack begins: the driver ships `Work`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nodebench.planning import RunOptions
from nodebench.spec import Trial
from nodebench.store import Store
from nodebench.store.rows import Row

REPORT_EVERY_S = 0.5
"""Epochs that follow each other faster are not all reported to the driver; the store has them."""


@dataclass(frozen=True)
class Work:
    """What every worker needs, shipped once; `path` is the driver's `sys.path`."""

    trials: dict[str, Trial]
    store: Store
    options: RunOptions
    path: list[str]

    def find_code(self) -> None:
        """Lets this process import what the driver can: the trials' own code."""
        sys.path += [folder for folder in self.path if folder not in sys.path]


class PackRun:
    """A pack of trials on its way, from one report to the next."""

    def __init__(self, work: Work, ids: Sequence[str]):
        from nodebench.execution.seed_pack import Pack

        self._pack = Pack([work.trials[trial_id] for trial_id in ids], work.store, work.options)
        self._epochs = self._pack.epochs()
        # A search decides after each epoch.
        self._report_every_s = 0.0 if work.options.stop else REPORT_EVERY_S

    def report(self) -> dict[str, Any]:
        """Trains for some epochs, or to the end; gives what a result of Tune's holds.

        `rows` has the latest row by trial id; at the end, `problems` and `has_results` are those
        of the pack.
        """
        until = time.monotonic() + self._report_every_s
        latest: dict[str, Row] = {}
        for rows in self._epochs:
            latest |= rows
            if time.monotonic() >= until:  # a search looks at its one trial's own row
                return {**next(iter(rows.values())), "rows": latest}
        problems, has_results = self._pack.problems, self._pack.has_results
        return {"done": True, "rows": latest, "problems": problems, "has_results": has_results}

    def close(self) -> None:
        """Stops where the pack is: its trials resume from their last checkpoints."""
        self._epochs.close()
