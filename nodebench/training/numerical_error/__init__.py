"""How far a model's solves and gradients are from those of the ODE that it defines.

That ODE is taken to be what a reference, a solver with very many steps, makes of it in float64.
Where an error is not well above the reference's own, it is not told.
"""
