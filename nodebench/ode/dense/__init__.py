"""Fields of dense layers, whose solves on the CPU are compiled."""
