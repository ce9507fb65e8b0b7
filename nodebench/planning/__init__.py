"""A sweep compared with the store: what is missing, and what it will cost."""

from nodebench.planning.options import RunOptions
from nodebench.planning.plan import entries

__all__ = ["RunOptions", "entries"]
