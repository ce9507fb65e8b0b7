"""Tests of `nodebench.sweep`."""
