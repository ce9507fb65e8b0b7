"""The store as MLflow runs; only this subpackage imports MLflow."""
