"""A sweep file, read and expanded to an ordered list of trials: pure and deterministic."""

from nodebench.sweep.loading import load
from nodebench.sweep.sweep import Sweep

__all__ = ["Sweep", "load"]
