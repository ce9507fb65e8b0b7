import json
import multiprocessing
import os
import resource
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nodebench.errors import StoreError
from nodebench.files import write
from nodebench.store import Result, Store
from nodebench.store.lock import holder, locked
from tests.support.tiny_sweeps import tiny

RESULT = Result("finished", "", 3, {"test_accuracy": 0.5}, [], 1.0, 2.0)


def test_files_beside_the_trials_are_no_trials(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.trials_root.mkdir()
    (store.trials_root / ".DS_Store").write_bytes(b"")
    (store.trials_root / "notes.txt").write_text("mine")
    assert store.trial_ids() == set()
    assert store.results() == {}


def test_results_come_from_the_index_and_follow_the_files(tmp_path):
    store = Store(tmp_path)
    for name in ("aa", "bb"):
        store.folder(name).write_result(RESULT)
    assert store.results(["aa", "bb", "cc"]) == {"aa": RESULT, "bb": RESULT}
    assert set(json.loads((tmp_path / "index.json").read_text())) == {"aa", "bb"}
    changed = replace(RESULT, outcome="diverged")
    store.folder("aa").write_result(changed)
    (tmp_path / "trials" / "bb" / "result.json").unlink()
    assert store.results(["aa", "bb"]) == {"aa": changed}


def test_a_damaged_index_is_rebuilt(tmp_path):
    store = Store(tmp_path)
    store.folder("aa").write_result(RESULT)
    (tmp_path / "index.json").write_text("{half")
    assert store.results(["aa"]) == {"aa": RESULT}


def test_thousands_of_results_are_known_in_a_moment(tmp_path):
    store = Store(tmp_path)
    ids = [f"{number:012x}" for number in range(3000)]
    for trial_id in ids:
        store.folder(trial_id).write_result(RESULT)
    store.results(ids)
    start = time.perf_counter()
    assert len(store.results(ids)) == 3000
    assert time.perf_counter() - start < 1


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "a.json"
    write(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(path, "new" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_process_killed_while_it_writes_leaves_the_file_as_it_was(tmp_path):
    folder = Store(tmp_path).folder("aa")
    rows = [{"epoch": n, "loss": 0.1 * n} for n in range(1, 4)]
    folder.write_history(rows)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_die_while_writing, args=(folder.path / "history.jsonl",))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert folder.history() == rows


def _die_while_writing(path):
    Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # in this process, to be killed
    write(path, '{"epoch": 4, "lo')


def test_the_spec_in_the_store_gives_the_trial_again(tmp_path):
    trial = tiny(tmp_path).trials[0]
    folder = Store(tmp_path).folder(trial.id)
    folder.create(trial)
    values = json.loads((folder.path / "trial.json").read_text())
    assert type(trial.spec).model_validate(values["spec"]) == trial.spec


def _hold(root, ready):
    with Store(root).folder("aa").locked():
        ready.set()
        time.sleep(60)


def test_a_lock_is_seen_by_others_and_dies_with_its_holder(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(30)
    folder = Store(tmp_path).folder("aa")
    assert folder.state(None) == "running"
    with pytest.raises(StoreError, match=f"process {process.pid}"), folder.locked(wait_s=0.3):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with folder.locked(wait_s=5):
        assert folder.state(None) == "running"
    assert folder.state(None) == "new"


def test_a_trial_is_found_by_the_start_of_its_id(tmp_path):
    store = Store(tmp_path)
    for name in ("abc1", "abd2"):
        store.folder(name).write_result(RESULT)
    assert store.find("abc").path.name == "abc1"
    for start in ("ab", "x", "../abc1"):
        with pytest.raises(StoreError):
            store.find(start)


def test_a_lock_names_its_holder_alone(tmp_path):
    lock = tmp_path / "lock"
    with locked(lock, "it"):
        assert holder(lock).startswith(f"process {os.getpid()} on ")
    refused = pytest.raises(StoreError, match="it is held by another process")
    with locked(lock, "it", shared=True), refused, locked(lock, "it"):  # of several, who is left?
        pass
    assert holder(lock) is None
