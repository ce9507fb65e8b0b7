"""Tests of `nodebench.ode.compiled`."""
