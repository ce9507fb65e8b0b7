"""Archives: one file with a sweep's trials, to be imported into another store.

An archive is a zip file of `manifest.json`, `sweep.yaml` and `trials/<id>/` with the files that
describe a trial, and its checkpoint if weights were requested. The manifest has the size and the
SHA-256 of every other file. Nothing in an archive is trusted: names, sizes, checksums, ids and
contents are verified before anything reaches a store.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from nodebench.errors import NodebenchError, StoreError, shown
from nodebench.spec.identity import NUMERICS
from nodebench.store.store import Store
from nodebench.store.trial_contents import CHECKED_FILES, require_contents
from nodebench.store.trial_folder import TrialFolder

FORMAT = 1
"""The version of the format. Increment it if older releases cannot read what this one writes."""

MANIFEST, SWEEP = "manifest.json", "sweep.yaml"

TRIAL_ENTRY = re.compile(r"trials/([0-9a-f]{12})/([a-z]+\.[a-z]+)")
"""The only other names in an archive."""

TRIAL_FILES = frozenset({*CHECKED_FILES, TrialFolder.checkpoint.name})
"""The files of a trial that an archive may contain."""

MOST_BYTES_OF_TEXT = 256 << 20
"""The limit of files other than checkpoints; histories of thousands of epochs have a few MB."""

ZIP_CHUNK_BYTES = 1 << 20
EPOCH_OF_ZIP = (1980, 1, 1, 0, 0, 0)
"""The time of every entry, so that two exports of the same trials are the same file."""


class FileRecord(BaseModel):
    """A manifest's entry for a file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    bytes: NonNegativeInt
    sha256: str


class Manifest(BaseModel):
    """An archive's description of itself; newer releases may add fields."""

    model_config = ConfigDict(strict=True)

    format: int
    nodebench: str
    numerics: int
    sweep: str
    files: dict[str, FileRecord]


@dataclass(frozen=True)
class Archive:
    """A verified archive, unpacked: the sweep's file, and a store of its trials."""

    manifest: Manifest
    sweep_file: Path
    store: Store

    @property
    def trial_ids(self) -> list[str]:
        """The ids of its trials, in order."""
        return sorted(self.store.trial_ids())


def write_archive(
    file: Path, name: str, text: str, trials: Iterable[TrialFolder], *, weights: bool
) -> list[str]:
    """Writes the trials that have a result, and the sweep that plans them; returns their ids.

    An existing archive is replaced.

    Raises:
        StoreError: if no trial has a result, or the file exists and is not an archive.
    """
    if file.exists() and not _is_archive(file):
        raise StoreError(f"`{file}` is not an archive of nodebench, and is not replaced")
    manifest = Manifest(
        format=FORMAT, nodebench=version("nodebench"), numerics=NUMERICS, sweep=name, files={}
    )
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            _add(archive, manifest, SWEEP, text.encode())
            ids = [t.path.name for t in trials if _add_trial(archive, manifest, t, weights=weights)]
            archive.writestr(_entry(MANIFEST), manifest.model_dump_json(indent=1))
        if not ids:
            raise StoreError(f"{name}: no trial has a result yet, so there is nothing to export")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return ids


def _add_trial(
    archive: zipfile.ZipFile, manifest: Manifest, folder: TrialFolder, *, weights: bool
) -> bool:
    """Adds a trial, unless it has no result, or a process is writing to it."""
    with folder.read_locked() as is_free:
        result = folder.result()
        if not is_free or result is None or result.is_error:
            return False
        for path in _exported(folder, weights=weights):
            _add(archive, manifest, f"trials/{folder.path.name}/{path.name}", path)
    return True


def _exported(folder: TrialFolder, *, weights: bool) -> list[Path]:
    """A trial's files to export: no log and no traceback, which contain this machine's paths."""
    files = [folder.spec_file, *folder.reported_files, *([folder.checkpoint] if weights else [])]
    return [path for path in files if path.exists()]


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EPOCH_OF_ZIP)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry


def _add(archive: zipfile.ZipFile, manifest: Manifest, name: str, content: bytes | Path) -> None:
    """Adds a file, and its size and checksum to the manifest."""
    digest, size = hashlib.sha256(), 0
    with archive.open(_entry(name), "w", force_zip64=True) as target:
        for chunk in _chunks(content):
            target.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    manifest.files[name] = FileRecord(bytes=size, sha256=digest.hexdigest())


def _chunks(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while chunk := file.read(ZIP_CHUNK_BYTES):
            yield chunk


def _is_archive(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return MANIFEST in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


def unpack_archive(file: Path, folder: Path) -> Archive:
    """Unpacks an archive into an empty folder, and verifies all of it.

    Raises:
        StoreError: if it is damaged, hostile or from another release; the message says why.
    """
    if not file.is_file():
        raise _refused(file, "there is no such file")
    try:
        with zipfile.ZipFile(file) as archive:
            entries = _entries(archive, file)
            manifest = _manifest(archive, entries, file)
            _require_room(manifest, folder, file)
            for name, record in manifest.files.items():
                _unpack(archive, entries[name], record, folder / name, file)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _refused(file, f"it is not a whole zip file ({error})") from error
    found = Archive(manifest, folder / SWEEP, Store(folder))
    for trial_id in found.trial_ids:
        _require_trial(found.store.folder(trial_id), file)
    return found


def _refused(file: Path, why: str) -> StoreError:
    return StoreError(f"`{file}` was not imported: {why}")


def _entries(archive: zipfile.ZipFile, file: Path) -> dict[str, zipfile.ZipInfo]:
    """The entries by name, checked to be plain files with allowed names, each once."""
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name = entry.orig_filename
        kind = stat.S_IFMT(entry.external_attr >> 16)
        why = ""
        if name not in (MANIFEST, SWEEP) and not _is_name_of_trial(name):
            why = "is not the name of a file in an archive"
        elif kind not in (0, stat.S_IFREG):
            why = "is not a plain file"
        elif entry.flag_bits & 0x1:
            why = "is encrypted"
        elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            why = "is compressed by another method than deflate"
        elif name in found:
            why = "stands in it twice"
        if why:
            raise _refused(file, f"{shown(ascii(name)[1:-1])} {why}")
        found[name] = entry
    return found


def _is_name_of_trial(name: str) -> bool:
    """Whether a name is that of a trial's file that an archive may contain."""
    match = TRIAL_ENTRY.fullmatch(name)
    return match is not None and match[2] in TRIAL_FILES


def _manifest(
    archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], file: Path
) -> Manifest:
    """The archive's manifest, checked to be readable for this release and complete."""
    if MANIFEST not in entries or SWEEP not in entries:
        raise _refused(
            file, f"it has no `{MANIFEST}` or no `{SWEEP}`, so nodebench did not write it"
        )
    if entries[MANIFEST].file_size > MOST_BYTES_OF_TEXT:
        raise _refused(file, f"its `{MANIFEST}` is too large")
    try:
        values = json.loads(archive.read(entries[MANIFEST]))
        manifest = Manifest.model_validate(values)
    except (ValueError, RecursionError) as error:
        raise _refused(file, f"its `{MANIFEST}` is damaged") from error
    if manifest.format > FORMAT:
        raise _refused(file, f"nodebench {shown(manifest.nodebench)} wrote it: update this one")
    listed, there = set(manifest.files), set(entries) - {MANIFEST}
    if listed != there:
        name = min(listed ^ there)
        what = "has no checksum" if name in there else "is missing"
        raise _refused(file, f"{shown(name)} {what}")
    return manifest


def _require_room(manifest: Manifest, folder: Path, file: Path) -> None:
    """Rejects files that are too large for their kind, or for the disk."""
    for name, record in manifest.files.items():
        if record.bytes > MOST_BYTES_OF_TEXT and not name.endswith(".pt"):
            raise _refused(file, f"{shown(name)} has {record.bytes:,} bytes")
    needed, free = sum(r.bytes for r in manifest.files.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise _refused(file, f"it needs {needed:,} bytes, and {free:,} are free")


def _unpack(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, record: FileRecord, target: Path, file: Path
) -> None:
    """Unpacks an entry, and checks its size and checksum against the manifest."""
    digest, size = hashlib.sha256(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, target.open("xb") as out:
        while size <= record.bytes and (chunk := source.read(ZIP_CHUNK_BYTES)):
            out.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    if size != record.bytes or digest.hexdigest() != record.sha256:
        raise _refused(file, f"{shown(entry.filename)} does not have its checksum")


def _require_trial(folder: TrialFolder, file: Path) -> None:
    """Rejects a trial that does not match its id, or whose files are not a trial's."""
    trial_id = folder.path.name
    try:
        require_contents(folder)
        trial = folder.trial()
    except NodebenchError as error:
        raise _refused(file, f"trial {trial_id}: {' '.join(str(error).split())}") from error
    # Its weights file is on another machine, but the file's hash is on record.
    if trial.id != trial_id:
        raise _refused(
            file,
            f"trial {trial_id} is not what its id says. Another release of nodebench may have "
            f"written it, whose results are not this one's (numerics {NUMERICS})",
        )
