"""Tests of `nodebench.ode`."""
