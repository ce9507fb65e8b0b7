"""Networks, right-hand sides and norms."""
