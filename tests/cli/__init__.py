"""Tests of `nodebench.cli`."""
