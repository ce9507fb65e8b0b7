"""The distance of a model's solves and gradients from those of the ODE that it defines."""
