"""Embedded Runge-Kutta methods whose steps are chosen here: one per batch or one per sample."""
