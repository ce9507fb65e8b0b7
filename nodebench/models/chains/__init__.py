"""Layers of images in a row, and solves along them, as one operation of autograd on the CPU."""
