"""Tests of `nodebench.store.store`."""
