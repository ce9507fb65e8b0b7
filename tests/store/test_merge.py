import itertools
import json
import multiprocessing
import os
import shutil
import signal
from dataclasses import replace

import pytest

from nodebench import api
from nodebench.errors import StoreError
from nodebench.execution.runner import Monitor
from nodebench.store import Result, Store
from nodebench.store.merge import Merged, merge_trials, require_store
from tests.support.cli_process import command
from tests.support.tiny_sweeps import point, tiny

HERE = {"host": "here", "torch": "2.0", "hardware": "a CPU", "threads": 1}
RESULT = Result("finished", "", 3, {"parameters": 9, "test_accuracy": 0.5}, [HERE], 1.0, 2.0)
LIMITED = replace(RESULT, outcome="nfe", reason="made up", limit=10.0)


@pytest.fixture
def stores(tmp_path):
    return Store(tmp_path / "here"), Store(tmp_path / "there")


def put(store, trial_id="aa", result=None, epochs=0, points=()):
    """A made-up trial."""
    folder = store.folder(trial_id)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.log(f"in {store.root.name}")
    if epochs:
        folder.write_history([{"epoch": n} for n in range(1, epochs + 1)])
        folder.checkpoint.write_text(f"{epochs} epochs in {store.root.name}")
    if points:
        folder.write_evaluations(list(points))
    if result:
        folder.write_result(result)
    return folder


def content(store):
    """Every file of the store, but for locks."""
    files = (path for path in store.root.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(store.root)): path.read_bytes() for path in files}


def test_a_trial_that_is_lacking_is_copied_whole_and_others_are_not(stores):
    ours, theirs = stores
    put(theirs, "aa", RESULT, epochs=3, points=[point(0.5, method="euler", steps=2)])
    put(theirs, "bb", RESULT)
    with theirs.folder("aa").locked():
        pass
    assert merge_trials(["aa", "cc"], theirs, ours) == Merged(copied=["aa"])
    assert content(ours) == {k: v for k, v in content(theirs).items() if "aa" in k}
    assert not (ours.folder("aa").path / "lock").exists()
    assert merge_trials(["aa", "cc"], theirs, ours) == Merged(kept=["aa"])


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({}, {"epochs": 1}),
        ({"epochs": 1}, {"epochs": 2}),
        ({"epochs": 2}, {"epochs": 2, "result": RESULT}),
        ({"epochs": 2}, {"result": RESULT}),  # a checkpoint that was cleared away
        ({"epochs": 3, "result": replace(RESULT, outcome="error")}, {"epochs": 4}),
        ({"result": LIMITED}, {"result": replace(LIMITED, limit=20.0)}),
        ({"result": LIMITED}, {"result": RESULT}),
        ({"result": replace(RESULT, outcome="out-of-memory")}, {"result": RESULT}),
        ({"epochs": 3, "result": replace(RESULT, outcome="out-of-memory")}, {"epochs": 50}),
        ({"epochs": 3, "result": replace(LIMITED, outcome="deadline")}, {"epochs": 50}),
        ({"result": replace(RESULT, outcome="stopped")}, {"epochs": 50}),
        ({"epochs": 3}, {"epochs": 3, "result": LIMITED}),
        ({"result": LIMITED}, {"epochs": 3, "result": LIMITED}),
        ({"epochs": 40}, {"epochs": 50, "result": LIMITED}),  # resumed since, and interrupted
        ({"epochs": 3}, {"result": replace(RESULT, outcome="diverged")}),
    ],
)
def test_of_a_trial_that_both_have_the_one_that_is_further_is_kept(stores, less, more):
    ours, theirs = stores
    for behind, ahead in (stores, stores[::-1]):
        for store in stores:
            shutil.rmtree(store.root, ignore_errors=True)
        put(behind, **less)
        put(ahead, **more)
        expected = content(ahead)
        verdict = Merged(replaced=["aa"]) if behind is ours else Merged(kept=["aa"])
        assert merge_trials(["aa"], theirs, ours) == verdict
        assert content(ours) == expected


UNFINISHED = {
    "ends without weights after more epochs": (
        {"epochs": 50},
        {"result": replace(LIMITED, outcome="deadline", epoch=60)},
    ),
    "a higher limit without weights": (
        {"epochs": 3, "result": LIMITED},
        {"result": replace(LIMITED, limit=20.0)},
    ),
    "diverged where the other has gone on": (
        {"epochs": 50},
        {"result": replace(RESULT, outcome="diverged"), "epochs": 3},
    ),
}


@pytest.mark.parametrize("case", UNFINISHED)
def test_neither_of_two_replaces_the_other_where_each_has_what_the_other_lacks(stores, case):
    ours, theirs = stores
    for mine, other in (UNFINISHED[case], UNFINISHED[case][::-1]):
        for store in stores:
            shutil.rmtree(store.root, ignore_errors=True)
        put(ours, **mine)
        put(theirs, **other)
        expected = content(ours)
        assert merge_trials(["aa"], theirs, ours) == Merged(kept=["aa"])
        assert content(ours) == expected


ENDS = [None, *(replace(RESULT, outcome=word, epoch=n) for word, n in (
    ("out-of-memory", 2), ("stopped", 5), ("diverged", 2), ("finished", 6)
))]  # fmt: skip


def test_no_checkpoint_is_lost_to_what_has_fewer_epochs_and_merging_settles(stores):
    ours, theirs = stores
    copies = [(end, epochs) for end in ENDS for epochs in (0, 2, 5)]
    replaced = []
    for here, there in itertools.product(copies, copies):
        for store, (end, epochs) in ((ours, here), (theirs, there)):
            shutil.rmtree(store.root, ignore_errors=True)
            put(store, result=end, epochs=epochs)
        if merge_trials(["aa"], theirs, ours).replaced:
            replaced.append((here, there))
            assert not merge_trials(["aa"], theirs, ours).replaced
    assert len(replaced) > 50
    for (ended, epochs), (end, more) in replaced:
        assert epochs <= max(more, end.epoch if end else 0), (ended, epochs, end, more)
        assert ended is None or ended.outcome in ("out-of-memory", "stopped")
        assert ((end, more), (ended, epochs)) not in replaced


def test_their_end_never_stands_beside_our_weights(stores, monkeypatch):
    ours, theirs = stores
    folder = put(ours, epochs=2)
    put(theirs, result=RESULT)  # which came without weights

    def killed(_path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            merge_trials(["aa"], theirs, ours)
    assert folder.result() is None
    assert merge_trials(["aa"], theirs, ours) == Merged(replaced=["aa"])
    assert content(ours) == content(theirs)


def test_points_of_the_same_result_are_united(stores):
    ours, theirs = stores
    one, two, failed, cured = (
        point(0.5, method="euler", steps=2),
        point(0.6, method="euler", steps=4),
        point("nfe", method="euler", steps=8),
        point(0.7, method="euler", steps=8),
    )
    other_machine = replace(RESULT, summary={**RESULT.summary, "epoch_s": 7.0}, started=5.0)
    folder = put(ours, result=RESULT, points=[one, failed])
    put(theirs, result=other_machine, points=[point(0.5, method="euler", steps=2), two, cured])
    assert merge_trials(["aa"], theirs, ours) == Merged(extended=["aa"])
    assert folder.evaluations() == [one, cured, two]
    assert folder.result() == RESULT


def test_different_ends_of_one_trial_are_a_conflict_and_ours_is_kept(stores):
    ours, theirs = stores
    other = replace(RESULT, summary={"parameters": 9, "train_loss": 1.0, "test_accuracy": 0.6})
    put(ours, result=RESULT)
    put(theirs, result=other, points=[point(0.5, method="euler", steps=2)])
    before = content(ours)
    (conflict,) = merge_trials(["aa"], theirs, ours).conflicts
    assert next(iter(conflict.metrics.items())) == ("test_accuracy", (0.5, 0.6))
    assert conflict.metrics["train_loss"] == (None, 1.0)
    assert content(ours) == before
    put(theirs, result=replace(RESULT, outcome="diverged", epoch=1))
    (conflict,) = merge_trials(["aa"], theirs, ours).conflicts
    assert conflict.metrics == {"outcome": ("finished", "DNF (diverged, epoch 2)")}


def test_the_same_metrics_that_are_no_numbers_are_no_conflict(stores):
    for store in stores:
        put(store, result=replace(RESULT, outcome="diverged", summary={"loss": float("nan")}))
    assert merge_trials(["aa"], stores[1], stores[0]) == Merged(kept=["aa"])


@pytest.mark.parametrize("side", [0, 1])
def test_a_running_trial_is_left_alone_in_either_store(stores, side):
    put(stores[0], epochs=1)
    put(stores[1], epochs=2)
    put(stores[1], "bb", RESULT)
    before = content(stores[0])
    with stores[side].folder("aa").locked():
        merged = merge_trials(["aa", "bb"], stores[1], stores[0])
    assert merged == Merged(running=["aa"], copied=["bb"])
    assert content(stores[0]).items() >= before.items()


def test_what_is_no_store_is_refused_before_anything_is_copied(tmp_path, stores):
    ours, theirs = stores
    sweep = tiny(tmp_path)
    put(theirs, sweep.trials[0].id, RESULT)
    (tmp_path / "project" / "runs" / "trials").mkdir(parents=True)
    hint = r"is not a nodebench store.*Did you mean `.*project/runs`\?"
    with pytest.raises(StoreError, match=hint):
        api.merge(sweep, [theirs.root, tmp_path / "project"], ours)
    with pytest.raises(StoreError, match="this store itself"):
        require_store(ours.root, ours)
    assert not ours.root.exists()


@pytest.mark.parametrize("epochs_here", [0, 1])
def test_a_merge_that_is_killed_leaves_only_whole_trials_and_goes_on(stores, epochs_here):
    ours, theirs = stores
    if epochs_here:
        put(ours, epochs=epochs_here)
    put(theirs, result=RESULT, epochs=3)
    before = {k: v for k, v in content(ours).items() if k.startswith("trials")}
    context = multiprocessing.get_context("fork")
    killed = context.Process(target=_die_by_copy, args=(ours, theirs))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert {k: v for k, v in content(ours).items() if k.startswith("trials")} == before
    assert ours.results() == {}
    merge_trials(["aa"], theirs, ours)
    assert {k: v for k, v in content(ours).items() if k.startswith("trials")} == content(theirs)
    assert ours.results() == {"aa": RESULT}
    assert not list(ours.root.glob(".merge-*"))


def _die_by_copy(ours, theirs):
    copy = shutil.copyfile

    def half(source, target, **_):
        copy(source, target)
        os.truncate(target, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    shutil.copyfile = half  # in this process, to be killed
    merge_trials(["aa"], theirs, ours)


def test_two_shards_merge_into_a_whole_sweep_with_nothing_to_run(tmp_path):
    sweep = tiny(tmp_path, seeds=[0, 1, 2])
    quietly = {"inline": True, "track": False, "write_report": False}
    for number in (1, 2):
        store = Store(tmp_path / f"runs-{number}")
        api.run(sweep, store, Monitor(), shard=f"{number}/2", **quietly)
    env = {**os.environ, "NODEBENCH_RUNS": "runs"}
    done = command(tmp_path, "sync", "tiny.yaml", "--from", "runs-1", "--from", "runs-2", env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "runs-1: 2 copied",
        "runs-2: 1 copied",
        "tiny: MLflow is up to date (3 runs)",
    ]
    listed = json.loads(command(tmp_path, "plan", "tiny.yaml", "--json", env=env).stdout)
    assert [trial["missing"] for trial in listed["trials"]] == [False] * 3
    first = listed["trials"][0]["id"]
    file = tmp_path / "runs-1" / "trials" / first / "result.json"
    result = json.loads(file.read_text())
    ours = result["summary"]["test_accuracy"]
    result["summary"]["test_accuracy"] = 2.0
    file.write_text(json.dumps(result))
    done = command(tmp_path, "sync", "tiny.yaml", "--from", "runs-1", env=env)
    assert done.returncode == 1
    assert done.stdout.startswith("runs-1: 1 already here, 1 in conflict\n" + first)
    assert f"test_accuracy is {ours} here (" in done.stdout
    assert "and 2.0 there (" in done.stdout


def test_errors_by_a_newer_rule_replace_those_by_an_older(stores):
    ours, theirs = stores
    new = point(0.5, method="euler", steps=2, solver_error=0.1)
    old = {name: value for name, value in new.items() if name != "errors_rule"}
    for here, there, word in ((old, new, "extended"), (new, old, "kept")):
        put(ours, "aa", RESULT, points=[here])
        put(theirs, "aa", RESULT, points=[there])
        assert merge_trials(["aa"], theirs, ours) == Merged(**{word: ["aa"]})
        assert ours.folder("aa").evaluations() == [new]


def test_limits_of_two_kinds_are_not_compared_but_the_epochs_that_were_reached(stores):
    ours, theirs = stores
    by_minutes = replace(LIMITED, outcome="deadline", limit=60.0)
    put(ours, result=replace(LIMITED, limit=1000.0))  # evaluations, which are no minutes
    put(theirs, result=by_minutes)
    assert merge_trials(["aa"], theirs, ours) == Merged(kept=["aa"])
    assert merge_trials(["aa"], ours, theirs) == Merged(kept=["aa"])
    put(theirs, result=replace(by_minutes, epoch=4))
    assert merge_trials(["aa"], theirs, ours) == Merged(replaced=["aa"])
