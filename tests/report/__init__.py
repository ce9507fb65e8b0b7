"""Tests of `nodebench.report`."""
