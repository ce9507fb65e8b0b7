from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator

import hypothesis
import pytest
import torch

from nodebench.tracking.settings import configure_mlflow
from tests.support.coarse_reference import coarse_reference
from tests.support.figures import leave_unrendered, rendered_figures
from tests.support.mlflow_template import FOLDER, use_template
from tests.support.mlflow_writer import fork_writers

hypothesis.settings.register_profile("patient", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("patient")

for name in ("NODEBENCH_RUNS", "NODEBENCH_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
    os.environ.pop(name, None)  # whoever runs the tests has a store of their own

configure_mlflow()  # tests import MLflow themselves


def pytest_configure(config: pytest.Config) -> None:
    """Names the folder of MLflow's empty file, once for all processes of the session."""
    if FOLDER not in os.environ:
        os.environ[FOLDER] = folder = tempfile.mkdtemp(prefix="mlflow-template-")
        config.add_cleanup(lambda: shutil.rmtree(folder))
    use_template()
    leave_unrendered()
    fork_writers()


@pytest.fixture(autouse=True)
def same_bits_every_time() -> Iterator[None]:
    """Sums depend on the number of threads, and a trial may have set another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(name="coarse_reference")
def evaluated_with_a_coarse_reference() -> Iterator[None]:
    with coarse_reference():
        yield


@pytest.fixture(name="rendered_figures")
def figures_in_full() -> Iterator[None]:
    with rendered_figures():
        yield
