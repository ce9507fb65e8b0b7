"""The store as MLflow runs; only this room imports MLflow."""
