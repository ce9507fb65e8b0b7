"""Tests of `nodebench.data`."""
