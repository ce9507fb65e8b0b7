"""The store as MLflow runs, and the only importer of MLflow."""
