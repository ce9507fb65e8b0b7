"""Checks whether this machine is ready to run sweeps, in one table of checks.

torch and MLflow are imported by the checks that need them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nodebench.data.files import FILES, distinct, missing, prepare, remedy
from nodebench.errors import DataError, ResourceError, TrackingError, counted
from nodebench.execution.ray_cluster import address, quieten, temporary_folder
from nodebench.files import require_writable
from nodebench.planning.available_resources import cpu_count, memory_bytes
from nodebench.spec.data import DATASETS
from nodebench.spec.settings import Settings
from nodebench.store import Store
from nodebench.store.locations import tracking_file, tracking_uri
from nodebench.store.lock import holder
from nodebench.store.mlflow_file import lost, moved_experiments
from nodebench.store.result import TrialState
from nodebench.sweep import Sweep
from nodebench.tracking.settings import configure_mlflow

Level = Literal["ok", "warning", "problem"]

CHECKED_PACKAGES = ("torch", "torchvision", "torchdiffeq", "numba", "ray", "mlflow")
OLDEST_PYTHON = (3, 11)
ASK_FOR_RAY = "; `doctor --ray` starts or joins it for a full check"
LITTLE_BYTES, TOO_LITTLE_BYTES = 5e9, 5e8


@dataclass(frozen=True)
class Case:
    """The subject of the checks; `sweep` if one is given, `with_ray` if Ray is to be started."""

    store: Store
    data_root: Path
    sweep: Sweep | None = None
    with_ray: bool = False


@dataclass(frozen=True)
class Finding:
    """The finding of a check and, unless it is `ok`, what to do."""

    level: Level
    found: str
    cure: str = ""


def examine(case: Case) -> Iterator[tuple[str, Finding]]:
    """Runs every check in the table's order; yields its name with each of its findings."""
    for name, check in CHECKS.items():
        for finding in check(case):
            yield name, finding


def _python(_case: Case) -> Iterator[Finding]:
    needed = ".".join(map(str, OLDEST_PYTHON))
    is_new = tuple(map(int, platform.python_version_tuple()[:2])) >= OLDEST_PYTHON
    cure = "" if is_new else f"install Python {needed} or newer"
    yield Finding("ok" if is_new else "problem", platform.python_version(), cure)


def _versions(_case: Case) -> Iterator[Finding]:
    """The versions of the packages that matter, compared with `requirements.lock` if present."""
    locked = _locked(Path("requirements.lock"))
    for name in CHECKED_PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("problem", f"{name} is not installed", f"pip install {name}")
            continue
        wanted = locked.get(name)
        if wanted is None or version.partition("+")[0] == wanted.partition("+")[0]:
            yield Finding("ok", f"{name} {version}" + (", as locked" if wanted else ""))
        else:
            yield Finding(
                "warning",
                f"{name} {version}, but `requirements.lock` has {wanted}",
                "results may differ in their last bits: `uv pip sync requirements.lock`",
            )


def _locked(path: Path) -> dict[str, str]:
    """Package -> version in a lock file; empty if there is no such file."""
    if not path.is_file():
        return {}
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", path.read_text("utf-8"), re.M))


def _cpus(_case: Case) -> Iterator[Finding]:
    """The CPUs and memory that this process may use, often fewer than the machine has."""
    cpus, memory = cpu_count(), f"{memory_bytes() / 1e9:.1f} GB of memory"
    yield Finding("ok", f"{counted(cpus, 'CPU')} and {memory} available")


def _gpu(case: Case) -> Iterator[Finding]:
    try:
        import torch
        import torchvision  # noqa: F401 - fails if built for another torch
    except (ImportError, OSError, RuntimeError) as error:
        yield Finding("problem", f"torch cannot be imported ({error})", "install matching versions")
        return
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    driver = _driver()
    for number in range(count):
        free, total = torch.cuda.mem_get_info(number)
        room = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
        versions = f"driver {driver}, CUDA {torch.version.cuda}"
        yield Finding("ok", f"{torch.cuda.get_device_name(number)}, {room}, {versions}")
    if count == 0 and driver:
        reason = f" ({said[0].message})" if said else ""
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU only"
        yield Finding(
            "warning",
            f"driver {driver} is installed, but torch (built for {built}) sees no GPU{reason}",
            "update the driver, install another build of torch, or make the GPU visible",
        )
    elif count == 0 and case.sweep and case.sweep.resources.gpus:
        cure = "`run --cpu` trains on the CPU, and `--small` uses the small form"
        yield Finding("warning", f"`{case.sweep.name}` needs a GPU, but there is none", cure)
    elif count == 0:
        yield Finding("ok", "none: trials run on the CPU")


def _driver() -> str | None:
    """The version of NVIDIA's driver, if there is one."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", text)
    return found[0] if found else "unknown"


def _runs(case: Case) -> Iterator[Finding]:
    cure = "set NODEBENCH_RUNS to a writable folder"
    yield from _folder(case.store.root, "problem", cure)


def _data_folder(case: Case) -> Iterator[Finding]:
    cure = "data cannot be downloaded: set NODEBENCH_DATA to another folder, or copy the data there"
    yield from _folder(case.data_root, "warning", cure)


def _folder(folder: Path, level: Level, cure: str) -> Iterator[Finding]:
    """Whether a folder, which need not exist yet, is writable and has free space."""
    try:
        require_writable(folder)
    except OSError as error:
        yield Finding(level, f"`{folder}` cannot be written ({error.strerror or error})", cure)
        return
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    text = f"`{folder}` is writable, {free / 1e9:.1f} GB free"
    if free >= LITTLE_BYTES:
        yield Finding("ok", text)
    else:
        level = "warning" if free >= TOO_LITTLE_BYTES else level
        yield Finding(level, text, "`nodebench gc` lists files that are safe to delete")


def _data_sets(case: Case) -> Iterator[Finding]:
    """Whether the files of a sweep's data sets, or of all that have a folder, are complete."""
    data_sets: list[Settings]
    if case.sweep:
        data_sets = distinct(trial.spec.data for trial in case.sweep.trials)
    else:
        names = [name for name, files in FILES.items() if (case.data_root / files.folder).exists()]
        data_sets = [DATASETS[name](name=name) for name in names]
    for data in data_sets:
        yield _data_set(data, case.data_root)
    if not data_sets:
        yield Finding("ok", f"no files in `{case.data_root}` yet")


def _data_set(data: Settings, root: Path) -> Finding:
    name = str(getattr(data, "name", ""))
    if lacking := missing(data, root):
        level: Level = "warning" if FILES[name].download else "problem"
        return Finding(level, lacking, remedy(data))
    try:
        folder = prepare(data, root)
    except DataError as error:
        return Finding("problem", str(error))  # the error says what to do
    found = f"`{name}` is complete in `{folder}`" if folder else f"`{name}` needs no files"
    return Finding("ok", found)


def _mlflow(case: Case) -> Iterator[Finding]:
    try:
        configure_mlflow()
        from nodebench.tracking.client import probe_mlflow
    except ImportError as error:
        yield Finding("problem", f"MLflow cannot be imported ({error})", "pip install mlflow")
        return
    try:
        yield Finding("ok", probe_mlflow(case.store))
        yield from _artifacts(case.store)
    except TrackingError as error:
        cure = "run with `--no-track` meanwhile; `nodebench sync SWEEP` writes the missing entries"
        yield Finding("problem", str(error), cure)


def _artifacts(store: Store) -> Iterator[Finding]:
    """Artifacts that are not where MLflow's file records them; servers are not checked."""
    file = tracking_file(tracking_uri(store))
    if file is None or not file.exists():
        return
    if before := moved_experiments(file, store):
        yield Finding(
            "warning",
            f"MLflow records the artifacts of {_names(before)} at a former place of this store, "
            f"such as `{min(before.values())}`",
            "the next `run`, `sync` or `ui` corrects this",
        )
    elif gone := lost(file):
        yield Finding(
            "warning",
            f"artifacts of {_names(gone)} are missing",
            "`nodebench sync SWEEP` writes them again from the store",
        )


def _names(found: Collection[str]) -> str:
    """The first few names, in backticks."""
    return ", ".join([f"`{name}`" for name in sorted(found)[:5]] + ["…"] * (len(found) > 5))


def _ray(case: Case) -> Iterator[Finding]:
    if importlib.util.find_spec("ray") is None:
        cure = "pip install 'ray[tune]', or run with `--inline`"
        yield Finding("problem", "Ray is not installed", cure)
        return
    try:
        cluster = address()
        where = f"the cluster at `{cluster}`" if cluster else "this machine"
        if not cluster:
            temporary_folder()
        found = f": {_ray_resources(case.store.root)}" if case.with_ray else ASK_FOR_RAY
        yield Finding("ok", f"runs on {where}{found}")
    except ResourceError as error:
        cure = "check RAY_ADDRESS and RAY_TMPDIR, or run with `--inline`"
        yield Finding("problem", str(error), cure)


def _ray_resources(root: Path) -> str:
    quieten()  # Ray reads its settings when it is imported
    from nodebench.execution.ray_tune import ray_resources

    return ray_resources(root)


def _locks(case: Case) -> Iterator[Finding]:
    """The sweeps and trials that are running, and who holds them."""
    store = case.store
    found = [(path.stem, holder(path)) for path in store.sweep_locks()]
    found += [(trial.path.name, holder(trial.lock_file)) for trial in store.trial_folders()]
    held = [f"`{name}` is held by {who}" for name, who in found if who]
    yield from (Finding("ok", text) for text in held or ["nothing is running"])


def _interrupted(case: Case) -> Iterator[Finding]:
    """Trials that were started, but are not running and have no result."""
    store = case.store
    results = store.results()
    states = {t.path.name: t.state(results.get(t.path.name)) for t in store.trial_folders()}
    found = [trial_id for trial_id, state in states.items() if state == TrialState.INTERRUPTED]
    if found:
        shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
        cure = "`nodebench run SWEEP` resumes those of a sweep"
        yield Finding("warning", f"{len(found)} interrupted: {shown}", cure)
    else:
        yield Finding("ok", "none interrupted")


CHECKS: dict[str, Callable[[Case], Iterator[Finding]]] = {
    "python": _python,
    "versions": _versions,
    "cpus": _cpus,
    "gpu": _gpu,
    "runs": _runs,
    "data folder": _data_folder,
    "data sets": _data_sets,
    "mlflow": _mlflow,
    "ray": _ray,
    "locks": _locks,
    "trials": _interrupted,
}
