"""Tests of `nodebench.execution`."""
