"""Running many trials: pre-flight checks, Ray Tune or inline, seed packs, the timing pass."""
