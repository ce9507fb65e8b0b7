"""The functions of `import nodebench`, one for each verb of the command line and some more.

A sweep is one of `load_sweep`, or what it would be loaded by: a file, a report's folder or a name.
The default store is that of NODEBENCH_RUNS. `time` and `repro` are in `execution/launch.py`.

torch, Ray, MLflow and pandas are imported where they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from nodebench.data.files import data_sets
from nodebench.execution.doctor import Case, Finding, examine
from nodebench.execution.launch import Launched, evaluate_sweep, run_sweep
from nodebench.execution.launch_keywords import Launch, RunKeywords, with_keywords
from nodebench.execution.preflight import require_places
from nodebench.execution.publishing import Publication
from nodebench.execution.runner import Monitor
from nodebench.files import write
from nodebench.planning import entries
from nodebench.planning.launches import Imported, adopt, archived_sweep, remember, require_name
from nodebench.planning.lookup import SweepSource, load_sweep, resolved
from nodebench.planning.options import options_for
from nodebench.planning.plan import Entry
from nodebench.report.analysis.verdict import Verdict, judge
from nodebench.report.folder import require_no_loss, require_report_folder, require_results
from nodebench.spec.data import Dataset
from nodebench.store import Store
from nodebench.store.archive import unpack_archive, write_archive
from nodebench.store.locations import data_root, default_store, report_folder, require_place
from nodebench.store.merge import Merged, merge_store, require_store
from nodebench.store.scratch import scratch
from nodebench.tracking.settings import configure_mlflow

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from nodebench.data.load import Census

__all__ = [
    "compare",
    "data_sets",
    "doctor",
    "epochs",
    "evaluate",
    "export_archive",
    "fetch",
    "figures",
    "import_archive",
    "load_model",
    "load_sweep",
    "merge",
    "plan",
    "results",
    "run",
    "sync",
    "verdicts",
    "write_report",
    "write_scoreboard",
]


@with_keywords
def run(
    sweep: SweepSource,
    store: Store | None = None,
    monitor: Monitor | None = None,
    **how: Unpack[RunKeywords],
) -> Launched:
    """Runs the missing trials of a sweep, updates MLflow, and writes the report.

    `monitor` receives progress. `only` (one or several texts such as `solver.method=euler`) and
    `shard` (`i/n`) select a part of the trials; `retry_failed` retries those that did not finish
    (DNF). `inline` runs trials one by one in this process instead of on Ray, the default if only
    one is to run. `cpu` uses the CPU whatever the sweep asks for; `fail_fast` stops at the first
    crash. `track=False` leaves MLflow alone, and `require_mlflow` refuses to start unless it is
    writable. `write_report=False` writes no report. `replace_other` replaces a different sweep that
    has the same name, or a report that shows more than this sweep has.

    Raises:
        InputError, DataError, ResourceError: if it cannot run here; raised before anything starts.
        StoreError: if another process runs this sweep, or another file has its name.
        TrackingError: if MLflow is required but cannot be used, or its address is invalid.
    """
    launch = Launch.by_keywords("run", how)
    return run_sweep(*resolved(sweep, store), monitor or Monitor(), launch)


@with_keywords
def evaluate(
    sweep: SweepSource,
    store: Store | None = None,
    monitor: Monitor | None = None,
    **how: Unpack[RunKeywords],
) -> Launched:
    """Like `run`, but trains nothing: evaluates trained trials, or weights from elsewhere."""
    launch = Launch.by_keywords("evaluate", how)
    return evaluate_sweep(*resolved(sweep, store), monitor or Monitor(), launch)


def results(sweep: SweepSource, store: Store | None = None) -> pd.DataFrame:
    """One row per planned trial: id, cell, settings by dotted path, outcome, metrics, verdict.

    Trials without a result have the outcome `missing`.
    """
    from nodebench.report.analysis.columns import as_published
    from nodebench.report.analysis.findings import all_results

    return as_published("results", all_results(*resolved(sweep, store)))


def epochs(sweep: SweepSource, store: Store | None = None) -> pd.DataFrame:
    """One row per trial and epoch: trial, cell, settings, metrics."""
    from nodebench.report.analysis import frames
    from nodebench.report.analysis.columns import as_published

    return as_published("epochs", frames.epoch_frame(*resolved(sweep, store)))


def figures(
    sweep: SweepSource,
    folder: str | Path,
    store: Store | None = None,
    *,
    on_problem: Callable[[str], None] = lambda _: None,
) -> dict[str, Path]:
    """Draws the figures of a sweep's report into a folder; name -> SVG, with a PNG of each.

    `on_problem` receives a message for each figure that could not be drawn.
    """
    from nodebench.report.page import draw_figures

    return draw_figures(*resolved(sweep, store), Path(folder), on_problem)


def verdicts(sweep: SweepSource, store: Store | None = None) -> dict[str, Verdict]:
    """The verdict whether a trained network is still an ODE, by trial id, for evaluated trials."""
    sweep, store = resolved(sweep, store)
    found = ((trial.id, judge(trial, sweep, store)) for trial in sweep.trials)
    return {trial_id: judged for trial_id, judged in found if judged}


def compare(reference: SweepSource, source: SweepSource, store: Store | None = None) -> str:
    """How the results of `source` differ from those of `reference`, as a Markdown table.

    Raises:
        InputError: if either cannot be read, or they have no configuration in common.
    """
    from nodebench.report.comparison import comparison, read_sides

    return comparison(*read_sides(reference, source, store or default_store()))


def sync(
    sweep: SweepSource, store: Store | None = None, *, replace_other: bool = False
) -> dict[str, str]:
    """Writes the entries of a sweep that are missing in MLflow; returns the run id of each trial.

    Raises:
        ResourceError: if the store cannot be written.
        StoreError: if another file has the sweep's name, without `replace_other`.
        TrackingError: if MLflow cannot be reached.
    """
    sweep, store = resolved(sweep, store)
    # A wrong address is reported before MLflow is imported.
    Publication(write_report=False, replace_other=replace_other).require_places(sweep, store)
    configure_mlflow()
    from nodebench.tracking.tracker import Tracker

    remember(sweep, store)
    with store.sweep(sweep.name).tracking_lock():
        tracker = Tracker(sweep, store)
        tracker.seek_artifacts()
        tracker.update_all()
        return tracker.run_ids()


def write_report(
    sweep: SweepSource,
    store: Store | None = None,
    folder: str | Path | None = None,
    *,
    from_mlflow: bool = False,
    on_problem: Callable[[str], None] = lambda _: None,
) -> Path:
    """Writes a sweep's report, by default to `reports/<sweep>/`; returns its page.

    `from_mlflow` reads MLflow's artifacts instead of the store. `on_problem` receives a message for
    each figure that could not be drawn.

    Raises:
        ResourceError: if the folder cannot be written.
        StoreError: if nothing has been trained; if it would overwrite a file that is not a report's
            or, if no folder is given, another file's report or one that shows more than this one.
        TrackingError: if MLflow is needed but cannot be read.
    """
    from nodebench.report import page

    sweep, store = resolved(sweep, store)
    target = Path(folder or report_folder(sweep.name))
    require_place(target, "Pass a writable folder to `--out`")
    require_report_folder(target)
    if folder is None:
        require_name(sweep, store)
        require_no_loss(sweep, target)
    if not from_mlflow:
        require_results(sweep, store)
        report = page.write_report_folder(sweep, store, target)
    else:
        configure_mlflow()
        from nodebench.tracking.restoration import restored_store

        with restored_store(sweep, store) as copy:
            report = page.write_report_folder(sweep, copy, target)
    for problem in report.undrawn:
        on_problem(problem)
    return report.page


def write_scoreboard(sweeps: Path = Path("sweeps"), reports: Path = Path("reports")) -> Path:
    """Writes the scoreboard, from sweep files and a folder's reports; returns its path."""
    from nodebench.report.scoreboard import scoreboard_page

    write(page := reports / "README.md", scoreboard_page(sweeps, reports))
    return page


def load_model(trial_id: str, store: Store | None = None) -> nn.Module:
    """A trained network, by its trial's id or the start of the id (see `plan` or `results.csv`).

    It is in evaluation mode, on the CPU. Its data set must be available, for the sizes of layers.

    Raises:
        StoreError: if there is no such trial, or its training has not finished.
        DataError: if its data set is missing or damaged.
    """
    from nodebench.training.checkpoint import trained_model

    return trained_model((store or default_store()).find(trial_id), data_root())


def merge(
    sweep: SweepSource,
    folders: Sequence[str | Path],
    store: Store | None = None,
    *,
    replace_other: bool = False,
) -> list[Merged]:
    """Merges a sweep's trials from other machines' stores; returns what was done with each.

    Raises:
        ResourceError: if the store cannot be written.
        StoreError: if a folder is not a store, before anything is copied, or cannot be read; or if
            another file has the sweep's name, without `replace_other`.
    """
    sweep, store = resolved(sweep, store)
    publication = Publication(track=False, write_report=False, replace_other=replace_other)
    publication.require_places(sweep, store)
    others = [require_store(Path(folder), store) for folder in folders]
    remember(sweep, store)
    ids = [trial.id for trial in sweep.trials]
    return [merge_store(ids, other, store) for other in others]


def export_archive(
    sweep: SweepSource,
    file: str | Path | None = None,
    store: Store | None = None,
    *,
    weights: bool = False,
) -> tuple[Path, list[str]]:
    """Writes results to a file, by default `<sweep>.nodebench.zip`; returns it and the trials' ids.

    Raises:
        StoreError: in the same cases as `store.archive.write_archive`.
    """
    sweep, store = resolved(sweep, store)
    file = Path(file or f"{sweep.name}.nodebench.zip")
    folders = [store.folder(trial.id) for trial in sweep.trials]
    return file, write_archive(file, sweep.name, sweep.text, folders, weights=weights)


def import_archive(
    file: str | Path, store: Store | None = None, *, replace_other: bool = False
) -> Imported:
    """Verifies an exported sweep and all of its trials, then copies them into a store.

    Raises:
        ResourceError: if the store cannot be written.
        StoreError: if the file is not an intact archive, or would overwrite a file of the user's.
    """
    store = store or default_store()
    require_places(store, None)
    with scratch(store.root, "import") as folder:
        archive = unpack_archive(Path(file), folder)
        sweep = archived_sweep(archive.sweep_file, archive.manifest.sweep)
        store.sweep(sweep.name).require_copy()  # before its trials are copied
        merged = merge_store(archive.trial_ids, archive.store, store)
    return Imported(sweep, merged, adopt(sweep, store, replace=replace_other))


def doctor(
    sweep: SweepSource | None = None, store: Store | None = None, *, with_ray: bool = False
) -> list[tuple[str, Finding]]:
    """Checks whether this machine is ready; `with_ray` also starts Ray."""
    found = None if sweep is None else resolved(sweep, store)[0]
    return list(examine(Case(store or default_store(), data_root(), found, with_ray)))


def fetch(data_set: Dataset | str) -> Census:
    """Downloads a data set, or one by its name, if it is missing; verifies and counts its samples.

    Raises:
        DataError: if it cannot be downloaded, or is damaged.
        InputError: if there is none of that name.
    """
    from nodebench.data.load import census

    [found] = data_sets([data_set]) if isinstance(data_set, str) else [data_set]
    return census(found, data_root())


def plan(sweep: SweepSource, store: Store | None = None) -> list[Entry]:
    """Every trial of a sweep and its state in a store."""
    sweep, store = resolved(sweep, store)
    return entries(sweep, store, options_for(sweep))
