"""Trials run with a Ray of their own."""

from typing import Any

from nodebench.execution.ray_cluster import quieten
from nodebench.execution.runner import Monitor
from nodebench.planning import RunOptions
from nodebench.spec import Trial
from nodebench.store import Store


def run_with_ray(
    trials: list[Trial], store: Store, options: RunOptions, monitor: Monitor, **how: Any
) -> None:
    """Runs trials with Ray, which is started or joined for them alone."""
    quieten()
    from nodebench.execution.ray_tune import workers

    with workers(store.root) as run:
        run(trials, store, options, monitor, **how)
