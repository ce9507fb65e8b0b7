"""Solving ODEs: fixed-step methods of our own, torchdiffeq's adaptive ones, and gradients."""
