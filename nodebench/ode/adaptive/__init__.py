"""Embedded Runge-Kutta methods with our own step size control, per batch or per sample."""
