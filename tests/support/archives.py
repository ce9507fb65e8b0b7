"""Stores that are finished without a training, and archives of them."""

from __future__ import annotations

import zipfile
from dataclasses import replace

from nodebench import api
from nodebench.store import Result, Store
from tests.support.tiny_sweeps import TINY, point, tiny

HERE = {"host": "here", "hardware": "a CPU", "device": "cpu", "threads": 1, "torch": "2.0"}
THERE = {**HERE, "host": "there", "hardware": "another CPU"}
RESULT = Result("finished", "", 3, {"test_accuracy": 0.5, "epoch_s": 2.0}, [HERE], 1.0, 2.0)


def filled(folder, *, environment=HERE, accuracy=0.5, started=1.0, seeds=(0, 1), **base):
    """A sweep, and a store in which all of it is finished; `base` is added to its own."""
    folder.mkdir(exist_ok=True)
    sweep = tiny(folder, base={**TINY, **base}, seeds=list(seeds))
    store = Store(folder / "runs")
    for trial in sweep.trials:
        trial_folder = store.folder(trial.id)
        trial_folder.create(trial)
        trial_folder.write_history([{"epoch": 1, "time": 1.0, "loss": float("nan")}])
        trial_folder.write_evaluations([point(accuracy, method="euler", steps=2)])
        trial_folder.checkpoint.write_bytes(b"weights")
        trial_folder.write_error("/home/somebody/secret")
        summary = {"test_accuracy": accuracy + trial.spec.seed / 10, "epoch_s": 2.0}
        result = replace(RESULT, summary=summary, environments=[environment], started=started)
        trial_folder.write_result(result)
    return sweep, store


def exported(folder, **how):
    sweep, store = filled(folder)
    return api.export_archive(sweep, folder / "a.zip", store, **how)[0]


def names(file):
    with zipfile.ZipFile(file) as archive:
        return sorted(archive.namelist())


def content(store):
    files = (path for path in store.root.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(store.root)): path.read_bytes() for path in files}
