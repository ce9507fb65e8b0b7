"""Embedded Runge-Kutta methods whose steps this project chooses: one per batch or one per sample."""
