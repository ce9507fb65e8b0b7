"""Tests of `nodebench.tracking.tracker`."""
