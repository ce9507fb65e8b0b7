"""A report's figures, as SVG and PNG: the same data give the same bytes."""
