"""What the processes of one session of tests share."""

FOLDER = "NODEBENCH_TESTS"
"""The environment variable that names their folder: MLflow's empty file, the command server."""
