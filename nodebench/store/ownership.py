"""The ownership of folders: a store never overwrites the user's files."""

from __future__ import annotations

from pathlib import Path

from nodebench.errors import StoreError
from nodebench.files import write
from nodebench.store.trial_folder import TrialFolder

MARK = ".nodebench"
INDEX, SWEEPS, TRIALS = "index.json", "sweeps", "trials"
"""The names that a store writes in its root."""


def require_store_folder(root: Path) -> None:
    """Rejects a folder that has files of the user's where a store writes.

    Raises:
        StoreError: if it has such files, or is a file itself.
    """
    if root.exists() and not root.is_dir():
        raise StoreError(f"NODEBENCH_RUNS is `{root}`, which is a file: set it to a folder")
    if (root / MARK).exists():
        return
    there = [name for name in (SWEEPS, TRIALS, INDEX) if (root / name).exists()]
    if there and not _is_own(root):
        raise StoreError(
            f"`{root}` has {', '.join(f'`{name}`' for name in there)}, which nodebench did not "
            "write and a store would overwrite: set NODEBENCH_RUNS to a folder that only nodebench "
            "uses, such as `runs`"
        )


def mark_own(root: Path) -> None:
    """Marks a folder as a store's."""
    if not (root / MARK).exists():
        write(root / MARK, "A store of nodebench, which manages all files in this folder.\n")


def _is_own(root: Path) -> bool:
    """Whether an unmarked folder is the store of an earlier release."""
    trials, sweeps = root / TRIALS, root / SWEEPS
    return (
        (trials.is_dir() or not (trials.exists() or (root / INDEX).exists()))
        and all(TrialFolder(path).was_begun() for path in trials.glob("*"))
        and (sweeps.is_dir() or not sweeps.exists())
        and all(_is_stores(path) for path in sweeps.glob("*"))
    )


def _is_stores(path: Path) -> bool:
    """Whether a file in a folder `sweeps` is one that a store writes there."""
    if path.suffix == ".yaml":
        return path.with_suffix(".json").exists()
    return path.name.startswith(".") or path.suffix in (".json", ".lock")
