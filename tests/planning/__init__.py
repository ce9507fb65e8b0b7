"""Tests of `nodebench.planning.plan`."""
