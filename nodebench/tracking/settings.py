"""How MLflow behaves in our processes."""

from __future__ import annotations

import logging
import os

from nodebench.store.locations import variable


def configure() -> None:
    """Sets MLflow's environment variables, unless the user has.

    Call it before importing `tracking.client` or `tracker`: MLflow's own import would start a
    thread that sends telemetry.
    """
    os.environ.update(
        MLFLOW_DISABLE_TELEMETRY=variable("MLFLOW_DISABLE_TELEMETRY") or "true",
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",  # two lines a run
        # A server that does not answer delays nobody for long. Our caller tries again; MLflow
        # itself would also repeat the creation of a run whose answer was lost, and make two of it.
        MLFLOW_HTTP_REQUEST_TIMEOUT=variable("MLFLOW_HTTP_REQUEST_TIMEOUT") or "15",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES=variable("MLFLOW_HTTP_REQUEST_MAX_RETRIES") or "0",
    )


def quieten_mlflow() -> None:
    """Leaves MLflow's errors only in its log; after its import, which sets the levels itself."""
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
