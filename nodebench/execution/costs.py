"""The expected cost of a sweep, from earlier trials or from a few steps taken now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nodebench.execution.preflight import require_all
from nodebench.planning import entries
from nodebench.planning.estimate import Cost, Forecast, forecast, recorded_costs, slots
from nodebench.planning.options import options_for
from nodebench.planning.plan import Entry
from nodebench.planning.seed_packs import packs
from nodebench.planning.selection import Selection
from nodebench.store import Store
from nodebench.store.result import TrialState
from nodebench.sweep import Sweep


def expected(sweep: Sweep, store: Store, found: Sequence[Entry]) -> Forecast | None:
    """The remaining cost of a sweep, from the trials trained so far; None if there are none."""
    here = slots(sweep.resources, gpus=1)
    training = [entry.trial for entry in found if entry.state == TrialState.RUNNING]
    running = len(packs(training, options_for(sweep), here))
    costs = recorded_costs(found, store, hardware=None)
    return forecast(found, costs, store, running or here)


def probed(
    sweep: Sweep,
    store: Store,
    selection: Selection | None = None,
    *,
    cpu: bool = False,
) -> tuple[dict[str, Cost | str], Forecast | None]:
    """The cost of each missing cell, by the cell's key, and of a whole `run` on this machine.

    Costs come from earlier trials on the same hardware if there are any, otherwise from a few
    training steps taken now. A text says why a cell's cost is unknown.

    Raises:
        InputError: as in `run`, if the machine or the data lack what the sweep asks for.
    """
    selection = selection or Selection()
    options = replace(options_for(sweep, cpu=cpu), retry_failed=selection.retry_failed)
    found = entries(sweep, store, options, selection.ids(sweep))
    missing = [entry.trial for entry in found if entry.missing]
    require_all(missing, options, inline=True)
    from nodebench.execution.probe import probe_trial
    from nodebench.training.machine import environment, gpu_count, select_device

    hardware = environment(select_device(options.resources.gpu_share))["hardware"]
    costs: dict[str, Cost | str] = {**recorded_costs(found, store, hardware)}
    for trial in missing:
        if trial.cell.key not in costs:
            probe = probe_trial(trial, options)
            costs[trial.cell.key] = probe if isinstance(probe, str) else probe.cost()
    known = {cell: cost for cell, cost in costs.items() if isinstance(cost, Cost)}
    return costs, forecast(found, known, store, slots(options.resources, gpus=gpu_count()))
