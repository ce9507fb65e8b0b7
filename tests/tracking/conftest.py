"""The store that tests of tracking begin with."""

import shutil
from dataclasses import replace

import pytest

from nodebench.execution.runner import Monitor, run_inline
from nodebench.files import write
from nodebench.spec.training import Limits
from nodebench.store import Store
from tests.support.coarse_reference import coarse_reference
from tests.support.tiny_sweeps import options
from tests.support.tracked_runs import of_three_trials


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """The store of a sweep of two finished trials and one that met its limit."""
    folder = tmp_path_factory.mktemp("original")
    sweep, store = of_three_trials(folder), Store(folder / "runs")
    write(store.sweep(sweep.name).file, sweep.text)
    with coarse_reference():
        run_inline(sweep.trials[:2], store, options(sweep, folder), Monitor())
    limited = replace(options(sweep, folder), limits=Limits(nfe=2))
    run_inline(sweep.trials[2:3], store, limited, Monitor())
    return store.root


@pytest.fixture
def trained(original, tmp_path):
    """The sweep and a copy of its store."""
    shutil.copytree(original, tmp_path / "runs")
    return of_three_trials(tmp_path), Store(tmp_path / "runs")
