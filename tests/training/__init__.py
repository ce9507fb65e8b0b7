"""Tests of `nodebench.training`."""
