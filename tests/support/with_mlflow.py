"""Imports MLflow, set up as for nodebench, where a process is to have it before it forks."""

from nodebench.tracking.settings import configure_mlflow
from tests.support.mlflow_template import use_template

configure_mlflow()
use_template()

import mlflow.store.tracking.sqlalchemy_store  # noqa: E402, F401

import nodebench.tracking.tracker  # noqa: E402, F401
