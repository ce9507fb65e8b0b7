"""The layers of a network: norms, activations, convolutions in faster forms."""
