from __future__ import annotations

import functools
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator

import hypothesis
import pytest

from nodebench.tracking.settings import configure_mlflow
from tests.support.session import FOLDER

hypothesis.settings.register_profile("patient", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("patient")

for name in ("NODEBENCH_RUNS", "NODEBENCH_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
    os.environ.pop(name, None)  # whoever runs the tests has a store of their own

configure_mlflow()  # tests import MLflow themselves

FIRST = (
    *("ode/test_dense.py", "project/test_rooms.py", "ode/test_dense_adaptive.py"),
    *("ode/test_regularizers.py", "execution/test_runner.py", "project/test_docs.py"),
    *("project/test_studies.py", "cli/test_stream.py", "report/test_solver_figures.py"),
    *("report/test_gradients.py", "training/test_evaluation.py", "report/test_scoreboard.py"),
    *("training/numerical_error/test_gradients.py", "store/test_mlflow_file.py"),
    *("ode/test_dense_output.py", "system/test_kills.py", "ode/test_replay.py"),
)
"""Files that take long, so that workers end together; before them what has numba compile, in one
worker while the other compiles nothing: both would compile the same."""


def pytest_configure(config: pytest.Config) -> None:
    """Names the folder that all processes of the session share, and prepares those with tests."""
    if FOLDER not in os.environ:
        os.environ[FOLDER] = folder = tempfile.mkdtemp(prefix="nodebench-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder))
    if "PYTEST_XDIST_WORKER" in os.environ or not config.getoption("numprocesses", None):
        _prepare()


def _prepare() -> None:
    """Sets up what tests use; what it imports takes seconds, and workers wait for their head."""
    from tests.support.figures import leave_unrendered
    from tests.support.mlflow_template import use_template
    from tests.support.mlflow_writer import fork_writers

    use_template()
    leave_unrendered()
    fork_writers()


def pytest_sessionstart() -> None:
    """Imports and collected tests stay: to look for garbage in them takes a tenth of the time."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts some files first; `--no-loadscope-reorder` keeps them there."""
    places = {file: place for place, file in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0][len("tests/") :], 99))


@pytest.fixture(autouse=True)
def quick_collections() -> None:
    """What is imported stays, and each of hundreds of collections would look through all of it."""
    _leave_out_of_collections(len(sys.modules) // 50)


@functools.cache
def _leave_out_of_collections(_fifties: int) -> None:
    """What there is by now, once for every fifty modules."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Lets what was left out of collections go, of which triton would complain at Python's end."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def same_bits_every_time() -> Iterator[None]:
    """Sums depend on the number of threads, and a trial may have set another."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(name="coarse_reference")
def evaluated_with_a_coarse_reference() -> Iterator[None]:
    from tests.support.coarse_reference import coarse_reference

    with coarse_reference():
        yield


@pytest.fixture(name="rendered_figures")
def figures_in_full() -> Iterator[None]:
    from tests.support.figures import rendered_figures

    with rendered_figures():
        yield
