"""Checks before anything starts: what would fail is refused, by name."""

from __future__ import annotations

import importlib.util
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from nodebench.data.files import distinct, prepare
from nodebench.errors import InputError, ResourceError
from nodebench.execution.ray_cluster import address, require_answer, require_node, temporary_folder
from nodebench.planning import RunOptions
from nodebench.planning.available_resources import cpu_count
from nodebench.planning.seed_packs import packs
from nodebench.spec import Trial
from nodebench.spec.own_code import known_alone, own_modules
from nodebench.spec.settings import DATA_ARGUMENTS, MODEL_ARGUMENTS, import_part
from nodebench.store import Store
from nodebench.store.locations import require_place
from nodebench.sweep.file import Resources


def require_places(store: Store, report: Path | None) -> None:
    """Refuses a store or a report's folder that cannot be written.

    Raises:
        ResourceError: with the folder and the reason.
    """
    for folder in (store.root, store.trials_root, store.sweeps_root):
        require_place(folder, "Set NODEBENCH_RUNS to a writable folder")
    for folder in (report, report / "figures") if report else ():
        require_place(folder, "Start in a writable folder, or pass `--no-report`")


def require_run(trials: Sequence[Trial], options: RunOptions, *, inline: bool) -> None:
    """Like `require_all`; also refuses to run inline if the search ends trials early."""
    if trials and inline and options.stop:
        raise ResourceError("`search.stop` needs Ray Tune: leave out `--inline` or `stop`")
    require_all(trials, options, inline=inline)


def require_all(trials: Sequence[Trial], options: RunOptions, *, inline: bool) -> None:
    """Refuses what would fail in every trial.

    Raises:
        InputError: if a component named by import path cannot be imported, its code has changed
            since its trials' ids were computed, or weights do not fit.
        DataError: if a data set is missing or damaged.
        ResourceError: if the machine or the cluster lacks what the trials ask for.
    """
    if trials:
        require_machine(options, inline=inline)
    if not options.resources.gpu_share and any(t.spec.train.precision == "tf32" for t in trials):
        raise ResourceError(
            "`train.precision: tf32` needs a GPU; on a CPU it is the same as float32. Use "
            "`float32` or `bf16`, or give `resources.gpus`"
        )
    own = {path for trial in trials for path in trial.spec.import_paths}
    for path in own & {trial.spec.data.name for trial in trials}:
        _require_own_code(path, DATA_ARGUMENTS)
    for path in own & {trial.spec.model.name for trial in trials}:
        _require_own_code(path, MODEL_ARGUMENTS)
    for data in distinct(trial.spec.data for trial in trials):
        prepare(data, options.data_root)
    _require_weights(trials, options.data_root)


def _require_own_code(path: str, arguments: Sequence[str]) -> None:
    """Imports a user's component, whose modules must be known and unchanged since the plan."""
    module = path.partition(":")[0]
    known = own_modules(module)
    if changed := sorted(set(own_modules.__wrapped__(module).items()) ^ set(known.items())):
        raise InputError(
            f"`{path}`: the code of `{changed[0][0]}` was changed after this process read it. "
            "Start again to plan the trials with the current code"
        )
    with known_alone([path]):
        import_part(path, arguments)


def _require_weights(trials: Sequence[Trial], root: Path) -> None:
    """Refuses weights that were replaced since the plan, or do not fit their networks."""
    begun = [trial for trial in trials if trial.spec.weights is not None]
    if not begun:
        return
    from nodebench.data.load import load_data
    from nodebench.models.build import build

    for trial in {str((t.spec.data, t.spec.model, t.spec.weights)): t for t in begun}.values():
        trial.require_as_named()
        build(trial.spec, load_data(trial.spec, root))


def with_measured_gpus(trials: Sequence[Trial], options: RunOptions) -> RunOptions:
    """The options with `gpus: auto` replaced by the share of a GPU that the largest pack needs.

    Raises:
        ResourceError: if there is no GPU to measure on.
    """
    if options.resources.gpus != "auto" or not trials:
        return options
    from nodebench.execution.probe import share_of_gpu

    largest: dict[str, int] = {}
    for pack in packs(trials, options, slots=1):
        largest[pack[0].cell.key] = max(len(pack), largest.get(pack[0].cell.key, 0))
    by_cell = {trial.cell.key: trial for trial in trials}
    # In another process, which frees its GPU memory when it ends.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        share = max(
            other.submit(share_of_gpu, trial, options, largest[key]).result()
            for key, trial in by_cell.items()
        )
    resources = options.resources.model_copy(update={"gpus": share})
    return replace(options, resources=resources)


def require_machine(options: RunOptions, *, inline: bool) -> None:
    """Refuses, before anything starts, resources that this machine does not have.

    Raises:
        ResourceError: if this machine has no GPU or too few CPUs, if Ray is needed but not
            installed or has no folder for its sockets, or if RAY_ADDRESS is invalid or does not
            answer.
    """
    resources = options.resources
    if not inline and importlib.util.find_spec("ray") is None:
        raise ResourceError("Ray is not installed: pip install 'ray[tune]', or pass `--inline`")
    where = None if inline else address()
    if where:
        require_answer(where)
        return
    if not inline:
        temporary_folder()
    require_node(resources, [{"CPU": cpu_count(), "GPU": _gpus(resources)}])


def _gpus(resources: Resources) -> int:
    if not resources.gpu_share:
        return 0  # no GPU is requested, so torch is not imported
    import torch

    return torch.cuda.device_count()
