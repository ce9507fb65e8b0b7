"""Embedded Runge-Kutta methods whose steps this project chooses: one a batch, or one a sample."""
