import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from nodebench.cli import run as cli
from nodebench.cli.app import app
from nodebench.planning.plan import Entry
from nodebench.store import Result
from nodebench.store.result import TrialState
from tests.support.cli_process import command
from tests.support.tiny_sweeps import TINY, tiny, write_tiny


def test_planning_imports_nothing_heavy():
    code = "import sys, nodebench.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "ray", "mlflow", "pandas", "seaborn", "scipy", "numpy"}
    assert not heavy & set(done.stdout.split())


def test_a_plan_lists_trials_and_creates_nothing(tmp_path):
    write_tiny(tmp_path, seeds=[0, 1])
    done = command(tmp_path, "plan", "tiny.yaml")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "tiny: 2 trials, 2 to run"
    assert os.listdir(tmp_path) == ["tiny.yaml"]
    listed = json.loads(command(tmp_path, "plan", "tiny.yaml", "--json").stdout)
    assert [trial["state"] for trial in listed["trials"]] == ["new", "new"]
    assert done.stdout.startswith(listed["trials"][0]["id"])


def test_a_part_of_a_plan_is_what_run_would_take_of_it(tmp_path):
    write_tiny(tmp_path, grid={"solver.steps": [2, 4]}, seeds=[0, 1])
    done = command(tmp_path, "plan", "tiny.yaml", "--only", "solver.steps=4", "--shard", "1/2")
    lines = done.stdout.splitlines()
    assert lines[0].endswith("steps 4 · s0")
    assert lines[1].startswith("a single training: `run` starts no Ray")
    assert lines[2:] == ["compared with the store `runs`", "tiny: 1 trial, 1 to run"]


def test_a_plan_of_a_change_lists_what_set_changes(tmp_path):
    write_tiny(tmp_path, small={"seeds": [1]})
    words = ("tiny.yaml", "--diff", "tiny.yaml", "--small", "--set")
    told = command(tmp_path, "plan", *words, "solver.steps=4").stdout.splitlines()
    assert told[0] == "0 trials unchanged, 1 new, 1 removed"
    assert told[1].endswith("(solver.steps: `2` -> `4`)")
    told = command(tmp_path, "plan", *words, "limits.nfe=9").stdout.splitlines()
    assert told == ["1 trial unchanged, 0 new, 0 removed", "changed: limits"]


def test_small_is_short_for_a_size(tmp_path):
    write_tiny(tmp_path, small={"seeds": [1]}, medium={"seeds": [1, 2]})
    ended = {}
    for words in (("--small",), ("--size", "small"), ("--size", "medium"), ("--size", "full"), ()):
        done = command(tmp_path, "plan", "tiny.yaml", *words)
        ended[words] = done.stdout.splitlines()[-1]
    assert list(ended.values()) == [
        "tiny-small: 1 trial, 1 to run",
        "tiny-small: 1 trial, 1 to run",
        "tiny-medium: 2 trials, 2 to run",
        "tiny: 1 trial, 1 to run",
        "tiny: 1 trial, 1 to run",
    ]
    done = command(tmp_path, "plan", "tiny.yaml", "--small", "--size", "medium")
    assert (done.returncode, done.stdout) == (2, "")
    assert "`--small` is short for `--size small`" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_pages_of_a_server_are_named_and_not_served_again(tmp_path):
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "http://head:5000/"}
    done = command(tmp_path, "ui", env=environment)
    assert (done.returncode, done.stdout) == (0, "http://head:5000\n")


def test_mistakes_end_with_status_two_and_create_nothing(tmp_path):
    base = {**TINY, "solver": {"method": "dopri", "steps": 0}, "trian": {}}
    write_tiny(tmp_path, base=base)
    for verb in ("plan", "run", "status", "report", "sync"):
        done = command(tmp_path, verb, "tiny.yaml")
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("\n") == 4
        assert "Did you mean `dopri5`?" in done.stderr
        assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == ["tiny.yaml"]


def test_run_trains_reports_and_the_second_launch_does_nothing(tmp_path):
    write_tiny(tmp_path, seeds=[0, 1])
    first = command(tmp_path, "run", "tiny.yaml", "--inline")
    assert first.returncode == 0, first.stderr
    writing, best, *_, cost, report, last = first.stdout.splitlines()[3:]
    assert writing == "writing the report"
    assert re.match(r"Best: plainode, .* test accuracy \(n = 2\), no better than chance\.$", best)
    assert cost.startswith("Cost: 2 trials, ")
    assert report == "report: reports/tiny/README.md"
    assert last == "tiny: 2 of 2 trials finished"
    assert (tmp_path / "reports" / "tiny" / "README.md").exists()
    assert (tmp_path / "runs" / "mlflow.db").exists()
    assert not (tmp_path / "mlruns").exists()
    second = command(tmp_path, "run", "tiny.yaml", "--inline", "--set", "seeds=[0, 1, 2]")
    assert "tiny: 3 trials, 1 to run" in second.stdout
    assert second.stdout.count("finished, test accuracy") == 1
    more = ("--set", "seeds=[0, 1, 2, 3]", "--set", "evaluate={methods: [rk4], steps: [2]}")
    planned = command(tmp_path, "plan", "tiny.yaml", *more).stdout.splitlines()[-1]
    assert planned == "tiny: 4 trials, 1 to train, 3 to evaluate"
    status = command(tmp_path, "status", "tiny.yaml")
    assert status.stdout.splitlines()[-2:] == ["compared with the store `runs`", "tiny: 2 finished"]
    listed = json.loads(command(tmp_path, "status", "tiny.yaml", "--json").stdout)
    trial_id = listed["trials"][0]["id"]
    assert "epoch 3" in command(tmp_path, "logs", trial_id[:6]).stdout


@pytest.mark.parametrize("option", ["--small", "--from-mlflow", "--size=medium", "--out=there"])
def test_a_comparison_does_not_ignore_other_options(option):
    told = CliRunner().invoke(app, ["report", "quickstart", "--compare", "spiral", option])
    assert told.exit_code != 0
    assert "`--compare` excludes" in str(told.exception)


def test_a_dnf_is_announced_and_the_status_is_zero_both_times(tmp_path):
    write_tiny(tmp_path, limits={"nfe": 1})
    for _ in range(2):
        done = command(tmp_path, "run", "tiny.yaml", "--inline", "--no-track")
        assert done.returncode == 0
        assert "DNF (nfe, epoch 1)" in done.stdout
        listed, *ending = done.stdout.splitlines()[-3:]
        assert listed[14:].startswith("nfe limit    plainode · s0: DNF (nfe, epoch 1): a pass of")
        assert ending == [
            "1 trial did not finish (DNF), which is a result: `nodebench run --retry-failed` "
            "repeats it",
            "tiny: 0 of 1 trial finished",
        ]
    for words, left in (((), 0), (("--retry-failed",), 1)):
        planned = command(tmp_path, "plan", "tiny.yaml", *words).stdout.splitlines()
        assert planned[-1] == f"tiny: 1 trial, {left} to run"


def test_a_trial_without_result_makes_the_status_one(tmp_path):
    (tmp_path / "mine.py").write_text("def model(spec, data):\n    raise KeyError('oops')\n")
    write_tiny(tmp_path, base={**TINY, "model": "mine:model"})
    done = command(tmp_path, "run", "tiny.yaml", "--inline", "--no-track", "--no-report")
    assert done.returncode == 1
    *_, listed, remedy, _ = done.stdout.splitlines()
    trial, standing, *reason = listed.split()
    assert standing == "failed"
    assert " ".join(reason).startswith("mine:model · s0: error: KeyError: 'oops' (`")
    traceback = f"1 trial crashed: `nodebench logs {trial}` prints the traceback"
    assert remedy == f"{traceback}; `nodebench run` repeats it"
    assert remedy in command(tmp_path, "status", "tiny.yaml").stdout.splitlines()
    assert "mine.py" in command(tmp_path, "logs", trial).stdout


def test_a_part_that_cannot_be_imported_is_refused_before_anything_starts(tmp_path):
    write_tiny(tmp_path, base={**TINY, "model": "nowhere:model"})
    done = command(tmp_path, "run", "tiny.yaml", "--inline")
    assert done.returncode == 2
    assert "`nowhere:model`" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_unknown_sweep_is_told_which_there_are():
    done = command(".", "plan", "quickstrt")
    assert done.returncode == 2
    assert "Did you mean `quickstart`?" in done.stderr


def test_a_name_stands_for_a_file_of_the_folder_before_its_copy_in_the_store(tmp_path):
    write_tiny(tmp_path)
    assert command(tmp_path, "run", "tiny", "--inline", "--no-track").returncode == 0
    write_tiny(tmp_path, seeds=[0, 1])
    planned = command(tmp_path, "plan", "tiny")
    assert planned.stdout.splitlines()[-1] == "tiny: 2 trials, 1 to run"
    assert "sweep file: tiny.yaml" in planned.stderr


def test_plan_compares_whole_sweeps(tmp_path):
    write_tiny(tmp_path)
    for option in (["--only", "seed=0"], ["--retry-failed"], ["--probe"], ["--json"]):
        done = command(tmp_path, "plan", "tiny.yaml", "--diff", "tiny.yaml", *option)
        assert done.returncode == 2
        assert "`--diff` compares two files" in done.stderr


def test_a_change_of_all_trials_is_told_once(tmp_path):
    write_tiny(tmp_path, grid={"solver.steps": [2, 4]}, seeds=[0, 1, 2, 3])
    words = ("tiny.yaml", "--diff", "tiny.yaml", "--set")
    told = command(tmp_path, "plan", *words, "train.epochs=5").stdout.splitlines()
    assert told[:2] == [
        "0 trials unchanged, 8 new, 8 removed",
        "+ 8 trials  (train.epochs: `3` -> `5`)",
    ]
    assert [line[:2] for line in told[2:]] == ["- "] * 7
    assert told[-1] == "- and 2 more"


def test_an_id_comes_before_its_sweep_or_after_it(tmp_path):
    write_tiny(tmp_path, grid={"solver.steps": [2, 4]})
    assert command(tmp_path, "run", "tiny.yaml", "--inline", "--no-track").returncode == 0
    rows = json.loads(command(tmp_path, "plan", "tiny.yaml", "--json").stdout)["trials"]
    first, other = (row["id"] for row in rows)
    labels = {row["id"]: row["label"] for row in rows}
    for order in ((first, "tiny.yaml"), ("tiny.yaml", first[:6]), (first,)):
        assert command(tmp_path, "repro", *order).stdout.splitlines()[-1].startswith("reproduced")
        told = command(tmp_path, "why", *order).stdout.splitlines()
        assert told[:4] == [
            f"most similar finished trial: {other} ({labels[other]} in tiny). Differences:",
            "  solver.steps: `2` here, `4` there",
            f"the id {first} ({labels[first]} in tiny) is a hash of:",
            "  data.name: spheres",
        ]


def test_a_setting_without_its_option_is_told_the_option():
    told = CliRunner().invoke(app, ["plan", "quickstart", "train.epochs=2"])
    assert told.exit_code == 2
    words = " ".join(told.output.replace("│", " ").split())
    assert "extra argument(s) (train.epochs=2). To change a setting, write `--set PATH=V" in words


def test_missing_data_is_said_before_anything_starts(tmp_path):
    base = {"data": "mnist", "model": "odenet", "train": {"epochs": 1}}
    write_tiny(tmp_path, base=base)
    (tmp_path / "data" / "MNIST" / "raw").mkdir(parents=True)
    name = "train-images-idx3-ubyte"
    for file in (
        name,
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        (tmp_path / "data" / "MNIST" / "raw" / file).write_bytes(b"not MNIST")
    done = command(tmp_path, "run", "tiny.yaml", "--inline")
    assert done.returncode == 2
    assert name in done.stderr
    assert "damaged" in done.stderr
    assert not (tmp_path / "runs" / "trials").exists()


def test_data_is_verified_and_counted_class_by_class(tmp_path):
    done = command(tmp_path, "data", "digits", "spheres", "spiral")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "digits: 1,347 train, 450 test; bundled with scikit-learn, no files needed",
        "  class    train    test",
        "  0          135      43",
        "  1          136      46",
        "  2          134      43",
        "  3          136      47",
        "  4          133      48",
        "  5          137      45",
        "  6          134      47",
        "  7          134      45",
        "  8          133      41",
        "  9          135      45",
        "spheres: 2,000 train, 1,000 test; generated from a trial's seed, no files needed",
        "  class                train    test",
        "  each of 2 classes    1,000     500",
        "spiral: generated from a trial's seed, no files needed",
    ]
    assert os.listdir(tmp_path) == []


def test_data_as_json_has_the_counts_of_every_class(tmp_path):
    listed = json.loads(command(tmp_path, "data", "spheres", "--json").stdout)
    classes = [{"name": name, "train": 1000, "test": 500} for name in "01"]
    assert listed["data"] == [
        {
            "name": "spheres",
            "origin": "generated from a trial's seed",
            "folder": None,
            "train": 2000,
            "test": 1000,
            "classes": classes,
        }
    ]


def test_every_unknown_data_set_is_named_before_any_is_fetched(tmp_path):
    done = command(tmp_path, "data", "digits", "mnits", "cifar")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "`mnits` is not a known data set. Did you mean `mnist`?" in done.stderr
    assert "`cifar` is not a known data set. Did you mean `cifar10`?" in done.stderr


def test_data_that_cannot_be_had_does_not_keep_the_rest_from_being_fetched(tmp_path):
    root = tmp_path / "elsewhere"
    environment = {**os.environ, "NODEBENCH_DATA": str(root)}
    done = command(tmp_path, "data", "agnews-small", "digits", env=environment)
    assert done.returncode == 2
    assert done.stdout.startswith("digits: 1,347 train")
    assert f"`agnews-small` has none of its files in `{root}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_says_which_data_is_missing_and_how_to_get_it(tmp_path):
    environment = {**os.environ, "NODEBENCH_DATA": str(tmp_path)}
    done = command(tmp_path, "plan", "mnist-solver", "--small", env=environment)
    assert done.stdout.count("`mnist` has none of its files in") == 1
    assert "`nodebench data mnist` downloads them now" in done.stdout
    assert "none of its files" not in command(tmp_path, "plan", "quickstart").stdout


def test_every_sweep_file_plans():
    files = sorted(Path("sweeps").glob("*.yaml"))
    assert files
    for file in files:
        done = command(".", "plan", str(file))
        assert done.returncode == 0, done.stderr
        assert yaml.safe_load(file.read_text())["name"] == file.stem


def test_a_trial_whose_evaluation_is_incomplete_is_announced(tmp_path, capsys):
    sweep = tiny(tmp_path, seeds=[0, 1])
    result = Result("finished", "", 3, {}, [], 1.0, 2.0)
    part, whole = sweep.trials
    entries = [
        Entry(part, TrialState.DONE, result, missing=True, is_trained=True),
        Entry(whole, TrialState.DONE, result, missing=False, is_trained=True),
    ]
    cli._conclude(sweep, entries)
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(part.id)
    assert first.endswith(f"evaluation incomplete; see `nodebench logs {part.id}`")
    assert last == "tiny: 2 of 2 trials finished"


def test_evaluating_needs_something_to_evaluate(tmp_path):
    write_tiny(tmp_path)
    done = command(tmp_path, "evaluate", "tiny.yaml")
    assert done.returncode == 2
    assert "tiny.yaml has no `evaluate:`, so there is nothing to evaluate" in done.stderr


def test_evaluating_trains_nothing(tmp_path):
    write_tiny(tmp_path, evaluate={"methods": ["euler"], "steps": [4]})
    done = command(tmp_path, "evaluate", "tiny.yaml", "--inline", "--no-track")
    assert done.returncode == 1
    assert "1 trial is not trained" in done.stdout
    assert not (tmp_path / "runs" / "trials").exists()
