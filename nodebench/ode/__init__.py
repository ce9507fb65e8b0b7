"""ODE blocks, their solvers and their gradients; the only importer of torchdiffeq."""
