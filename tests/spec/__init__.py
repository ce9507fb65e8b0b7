"""Tests of `nodebench.spec.trial`."""
