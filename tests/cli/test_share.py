"""The verbs about sweep files: those that have a name here, and new ones."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from nodebench.cli.share import sweeps_text
from nodebench.cli.text import first_sentence
from nodebench.planning import lookup
from nodebench.planning.launches import remember
from nodebench.store import Store
from nodebench.sweep import load
from tests.support.cli_process import command
from tests.support.tiny_sweeps import write_tiny


def test_every_sweep_has_a_name_and_a_sentence():
    found = lookup.list_sweeps()
    assert len(found) >= 23
    for each in found:
        assert each.problem is None
        assert each.sizes[-1] == "full"
        assert first_sentence(each.about).endswith((".", ")", "?"))


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One sentence.", "One sentence."),
        ("No end", "No end"),
        ("Steps (Ott et al. 2021, Figure 5). Spheres.", "Steps (Ott et al. 2021, Figure 5)."),
        ("By Ott et al. A\n  new line. Next.", "By Ott et al. A new line."),
        ("A tolerance of 1.5 is fine! Yes.", "A tolerance of 1.5 is fine!"),
        ("(An aside.) Then more.", "(An aside.)"),
    ],
)
def test_a_first_sentence_ends_where_it_ends(text, first):
    assert first_sentence(text) == first


def test_sweeps_are_listed_a_line_each_or_wrapped_to_a_terminal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = lookup.list_sweeps()
    lines = sweeps_text(found, None).splitlines()
    assert len(lines) == len(found)
    assert all(line.startswith(each.name) for line, each in zip(lines, found, strict=True))
    wrapped = sweeps_text(found, 60).splitlines()
    assert max(map(len, wrapped)) <= 60
    assert len(wrapped) > len(lines)


def test_a_local_file_that_cannot_be_read_is_listed_with_the_reason(tmp_path):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "broken.yaml").write_text("name: [")
    write_tiny(tmp_path / "sweeps", about="Mine is first. And more.")
    done = command(tmp_path, "sweeps")
    assert done.returncode == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "cannot be read: line 1, column 8: a value or a closing" in lines["broken"]
    assert lines["tiny"].endswith("Mine is first. [sweeps/tiny.yaml]")
    rows = json.loads(command(tmp_path, "sweeps", "--json").stdout)["sweeps"]
    (tiny,) = (row for row in rows if row["name"] == "tiny")
    assert (tiny["shipped"], tiny["about"]) == (False, "Mine is first. And more.")


def test_a_sweep_s_file_can_be_printed_and_copied(tmp_path):
    done = command(tmp_path, "sweeps", "quickstart")
    assert done.stdout == (lookup.shipped_sweeps() / "quickstart.yaml").read_text()
    done = command(tmp_path, "sweeps", "quickstrat")
    assert done.returncode == 2
    assert "Did you mean `quickstart`?" in done.stderr


def test_a_new_file_is_a_sweep_of_its_name_and_is_never_overwritten(tmp_path):
    done = command(tmp_path, "init", "norms.yaml")
    assert done.returncode == 0
    assert "nodebench run norms.yaml" in done.stdout
    sweep = load(tmp_path / "norms.yaml")
    assert (sweep.name, len(sweep.trials)) == ("norms", 6)
    text = (tmp_path / "norms.yaml").read_text()
    assert sum("#" in line for line in text.splitlines()) > 15
    assert "NAME" not in text
    done = command(tmp_path, "init", "norms")
    assert done.returncode == 2
    assert "`norms.yaml` exists, and is not overwritten" in done.stderr
    assert (tmp_path / "norms.yaml").read_text() == text
    assert command(tmp_path, "init").returncode == 0
    assert sorted(os.listdir(tmp_path)) == ["first-sweep.yaml", "norms.yaml"]


def test_a_new_file_needs_the_name_of_a_sweep(tmp_path):
    done = command(tmp_path, "init", "my norms.yaml")
    assert done.returncode == 2
    assert "names folders" in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_name_is_that_of_the_working_folder_then_of_a_launch_then_of_nodebench(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shipped = lookup.shipped_sweeps() / "quickstart.yaml"
    for source in ("quickstart", "quickstart.yaml", "sweeps/quickstart.yaml"):
        assert lookup.sweep_path(source) == shipped
    store = Store(tmp_path / "runs")
    remember(load(shipped), store)
    assert lookup.sweep_path("quickstart") == shipped
    (tmp_path / "elsewhere").mkdir()
    remember(load(write_tiny(tmp_path / "elsewhere", "quickstart")), store)
    assert lookup.sweep_path("quickstart") == store.sweep("quickstart").file
    write_tiny(tmp_path, "quickstart")
    assert str(lookup.sweep_path("quickstart")) == "quickstart.yaml"
    (tmp_path / "sweeps").mkdir()
    write_tiny(tmp_path / "sweeps", "quickstart")
    assert str(lookup.sweep_path("quickstart")) == "sweeps/quickstart.yaml"
    (tmp_path / "quickstart").mkdir()  # a folder of that name is not a sweep
    assert str(lookup.sweep_path("quickstart")) == "sweeps/quickstart.yaml"
    write_tiny(tmp_path / "quickstart", "sweep")
    assert str(lookup.sweep_path("quickstart")) == "quickstart/sweep.yaml"


@pytest.mark.parametrize("name", ["../pyproject", "/etc/passwd", "", "."])
def test_a_name_does_not_lead_out_of_the_folder_of_nodebench_s_sweeps(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "runs")
    assert lookup.shipped_sweeps() not in [p.parent for p in lookup._by_name(name, store)]


def test_results_go_from_one_store_to_another_by_a_file(tmp_path):
    write_tiny(tmp_path, seeds=[0, 1])
    quick = ("--inline", "--no-track", "--no-report")
    assert command(tmp_path, "run", "tiny.yaml", *quick).returncode == 0
    done = command(tmp_path, "export", "tiny.yaml")
    first, second = done.stdout.splitlines()
    assert first.startswith("tiny.nodebench.zip: 2 trials of tiny, ")
    digest = hashlib.sha256((tmp_path / "tiny.nodebench.zip").read_bytes()).hexdigest()
    assert second == f"sha256 {digest}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = command(elsewhere, "import", "../tiny.nodebench.zip")
    assert done.stdout.splitlines() == ["tiny, 2 trials: 2 new", "Next: `nodebench report tiny`"]
    done = command(elsewhere, "plan", "tiny")
    assert done.stdout.splitlines()[-1] == "tiny: 2 trials, 0 to run"
    assert "last launched or imported" in done.stderr
    done = command(elsewhere, "import", "../tiny.nodebench.zip")
    assert done.stdout.splitlines()[0] == "tiny, 2 trials: 2 already here"
    (tmp_path / "mine.txt").write_text("mine")
    done = command(elsewhere, "import", "../mine.txt")
    assert done.returncode == 2
    assert "was not imported" in done.stderr
    assert "Traceback" not in done.stderr
    assert command(elsewhere, "import", "absent.zip").returncode == 2
