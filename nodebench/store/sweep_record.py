"""One sweep's files in the store, apart from its trials."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from nodebench.errors import StoreError
from nodebench.files import read_json, write
from nodebench.store.lock import locked
from nodebench.store.ownership import SWEEPS, mark_own, require_store_folder
from nodebench.store.rows import Row

LOCK_WAIT_S = 30.0
"""Long enough for a process that is still writing although its driver was killed."""


class SweepRecord:
    """A store's record of the sweep with one name."""

    def __init__(self, root: Path, name: str):
        self.name = name
        self._root, self._folder = root, root / SWEEPS

    @property
    def file(self) -> Path:
        """The copy of the sweep's file, as it was last launched."""
        return self._folder / f"{self.name}.yaml"

    @property
    def _labels_file(self) -> Path:
        return self._folder / f"{self.name}.json"

    @property
    def _launches_file(self) -> Path:
        return self._folder / f"{self.name}.files.json"

    @property
    def _memo_file(self) -> Path:
        return self._folder / f"{self.name}.memo.json"

    def labels(self) -> dict[str, str]:
        """Every trial that a sweep of this name planned when it was launched: id -> label."""
        planned: dict[str, str] = read_json(self._labels_file, {})
        return planned

    def launches(self) -> list[Row]:
        """The files that the sweep was launched from, each once, the latest last."""
        files: list[Row] = read_json(self._launches_file, {}).get("files", [])
        return files

    def keep(self, text: str, labels: dict[str, str], launches: Sequence[Row] = ()) -> None:
        """Stores the sweep's file as launched and the files it was launched from, and adds labels.

        Raises:
            StoreError: if a file of the user's is in the way.
        """
        self.require_copy()
        mark_own(self._root)
        # Both copies, since the process may be killed between writing the two files.
        copies = sorted({_digest(self.file), _digest(text.encode())})
        known = {"files": list(launches) or self.launches(), "copies": copies}
        if read_json(self._launches_file, {}) != known:
            write(self._launches_file, json.dumps(known, indent=0))
        write(self.file, text)
        before = self.labels()
        if not labels.keys() <= before.keys():
            write(self._labels_file, json.dumps(before | labels, indent=0))

    def require_copy(self) -> None:
        """Refuses to replace a copy that is not as it was last written.

        Raises:
            StoreError: if it is not, or if the folder is not the store's own.
        """
        require_store_folder(self._root)
        if self._is_foreign():
            raise StoreError(
                f"`{self.file}` was not written by nodebench or has been changed since, and would "
                "be overwritten: move it away"
            )

    def _is_foreign(self) -> bool:
        if not self.file.exists():
            return False
        written: list[str] | None = read_json(self._launches_file, {}).get("copies")
        if written is None:  # an earlier release wrote the plan to a file of its own
            return not self._labels_file.exists()
        return _digest(self.file) not in written

    def memo(self) -> dict[str, Any]:
        """The state that the last launch published; see `planning/freshness.py`."""
        memo: dict[str, Any] = read_json(self._memo_file, {})
        return memo

    def keep_memo(self, **values: Any) -> None:
        """Adds to the memo."""
        write(self._memo_file, json.dumps(self.memo() | values))

    @contextlib.contextmanager
    def run_lock(self, shard: str = "1/1") -> Generator[None]:
        """Holds the lock for running the sweep, or one shard `i/n` of it while other shards run.

        Raises:
            StoreError: if another process runs it.
        """
        whole, is_part = self._folder / f"{self.name}.lock", shard != "1/1"
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(whole, f"the sweep `{self.name}`", shared=is_part))
            if is_part:
                part = whole.with_name(f"{self.name}.{shard.replace('/', '-of-')}.lock")
                stack.enter_context(locked(part, f"shard {shard} of the sweep `{self.name}`"))
            yield

    def tracking_lock(self) -> contextlib.AbstractContextManager[None]:
        """Holds the lock for writing the sweep to MLflow.

        Raises:
            StoreError: if another process still holds it after LOCK_WAIT_S.
        """
        path = self._folder / f"{self.name}.tracking.lock"
        return locked(path, f"writing `{self.name}` to MLflow", LOCK_WAIT_S)


def _digest(content: bytes | Path) -> str:
    """A digest of a file's content; a missing file counts as empty."""
    if isinstance(content, Path):
        content = content.read_bytes() if content.exists() else b""
    return hashlib.sha256(content).hexdigest()[:16]
