"""The code that a Ray worker runs: it trains a pack of trials and reports their epochs.

Ray is not imported here, and torch only when a pack begins: the driver also imports this module.
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
"""The shortest time between two reports to the driver; the store has the epochs in between."""


@dataclass(frozen=True)
class Work:
    """Everything that a worker needs, shipped once; `path` is the driver's `sys.path`."""

    trials: dict[str, Trial]
    store: Store
    options: RunOptions
    path: list[str]

    def find_code(self) -> None:
        """Lets this process import whatever the driver can, such as the user's own code."""
        sys.path += [folder for folder in self.path if folder not in sys.path]


class PackRun:
    """A pack of trials in training, which advances from one report to the next."""

    def __init__(self, work: Work, ids: Sequence[str]):
        from nodebench.execution.seed_pack import Pack

        self._pack = Pack([work.trials[trial_id] for trial_id in ids], work.store, work.options)
        self._epochs = self._pack.epochs()
        # A search decides after each epoch.
        self._report_every_s = 0.0 if work.options.stop else REPORT_EVERY_S

    def report(self) -> dict[str, Any]:
        """Trains for some epochs, or to the end; returns a result for Tune.

        `rows` has the latest row by trial id. The last result also has the `problems` and
        `has_results` of the pack.
        """
        until = time.monotonic() + self._report_every_s
        latest: dict[str, Row] = {}
        for rows in self._epochs:
            latest |= rows
            if time.monotonic() >= until:  # a search reads the row of the pack's one trial
                return {**next(iter(rows.values())), "rows": latest}
        problems, has_results = self._pack.problems, self._pack.has_results
        return {"done": True, "rows": latest, "problems": problems, "has_results": has_results}

    def close(self) -> None:
        """Stops the pack; its trials can resume from their last checkpoints."""
        self._epochs.close()
