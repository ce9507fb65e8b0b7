"""Tests of `nodebench.models`."""
