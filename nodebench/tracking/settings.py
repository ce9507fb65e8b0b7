"""The settings of MLflow in our processes."""

from __future__ import annotations

import logging
import os

from nodebench.store.locations import variable


def configure_mlflow() -> None:
    """Sets MLflow's environment variables, unless the user has.

    Call it before importing `tracking.client` or `tracker`: MLflow's own import would start a
    thread that sends telemetry.
    """
    os.environ.update(
        MLFLOW_DISABLE_TELEMETRY=variable("MLFLOW_DISABLE_TELEMETRY") or "true",
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",  # two lines per run
        # A server that does not answer must not delay us for long. Our callers retry; MLflow would
        # also repeat the creation of a run if only the answer was lost, and so create it twice.
        MLFLOW_HTTP_REQUEST_TIMEOUT=variable("MLFLOW_HTTP_REQUEST_TIMEOUT") or "15",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES=variable("MLFLOW_HTTP_REQUEST_MAX_RETRIES") or "0",
    )


def quieten_mlflow() -> None:
    """Reduces MLflow's log to errors; call it after importing MLflow, which sets the levels."""
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
