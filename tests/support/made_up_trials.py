"""Trials with files of chosen sizes and ages, which nobody trained."""

from __future__ import annotations

import os
from dataclasses import replace

from nodebench.planning.garbage import Wish
from nodebench.store import Result

RESULT = Result("finished", "", 3, {"test_accuracy": 0.5}, [], 1.0, 2.0)
KB = 1000
ALL = Wish(frozenset({"checkpoints", "orphans"}))


def put(store, trial_id, *, result=RESULT, checkpoint=KB, age_s=0.0, recipe=""):
    """A made-up trial with a result of a few bytes and a checkpoint of so many."""
    folder = store.folder(trial_id)
    folder.path.mkdir(parents=True)
    folder.write_result(replace(result, recipe=recipe)) if result else folder.log("begun")
    if checkpoint:
        folder.checkpoint.write_bytes(b"x" * checkpoint)
    for path in folder.path.iterdir():
        stamp = path.stat().st_mtime - age_s
        os.utime(path, (stamp, stamp))
    return folder


def known(sweep, store):
    """Makes a sweep known to the store, as launching it does."""
    store.sweep(sweep.name).keep(sweep.text, {t.id: sweep.label(t) for t in sweep.trials})
    return [trial.id for trial in sweep.trials]


def everything(store):
    return {
        str(path.relative_to(store.root)): path.read_bytes()
        for path in store.root.rglob("*")
        if path.is_file() and path.name not in ("lock", "index.json")
    }
