"""Chains of image layers, and solves along them, as one operation of autograd on the CPU."""
