"""How a sweep was made from its file: its size, and what `--set` changed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from nodebench.spec.settings import Settings
from nodebench.spec.vocabulary import Flag

SizeName = Literal["small", "medium", "full"]
SMALLER: tuple[SizeName, ...] = ("small", "medium")
"""The sizes that a file has if it has a block of that name; the file itself is the full one."""

WRITTEN_FIELD = "made"
"""The field that nodebench writes, not users."""


class Made(Settings):
    """How a sweep was made from its file; nodebench writes this into a report's `sweep.yaml`.

    `size` is its size. For a smaller size, `instead` has the values of the full size that it
    replaces. `changed` lists what `--set` changed, and `has_other_cells` says whether this changed
    the configurations.
    """

    size: SizeName = "full"
    instead: dict[str, Any] = {}
    changed: tuple[str, ...] = ()
    has_other_cells: Flag = False

    @model_validator(mode="before")
    @classmethod
    def _of_an_older_report(cls, tree: Any) -> Any:
        """Converts `small: true`, which older reports have."""
        if isinstance(tree, dict) and isinstance(tree.get("small"), bool):
            is_small = tree["small"]
            tree = {key: value for key, value in tree.items() if key != "small"}
            return {"size": "small", **tree} if is_small else tree
        return tree


def full_name(name: str) -> str:
    """The name of a sweep without its smaller size: `spiral` for `spiral-small`."""
    for size in SMALLER:
        name = name.removesuffix(f"-{size}")
    return name
