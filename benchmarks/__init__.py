"""The project's own speed, measured: `make bench`."""
