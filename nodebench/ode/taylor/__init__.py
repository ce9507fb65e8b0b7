"""Taylor coefficients of right-hand sides."""
