"""Networks and right-hand sides, from layers to a spec's whole network."""
