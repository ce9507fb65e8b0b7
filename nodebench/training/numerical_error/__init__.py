"""How far a model's solves and gradients are from those of the ODE that it defines."""
