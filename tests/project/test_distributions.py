"""The wheel and the sdist, and what an installed nodebench does far from its source tree."""

from __future__ import annotations

import email
import json
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import nodebench
from nodebench.planning.lookup import shipped_sweeps
from tests.support.installed import ROOT, build, command, installed

SWEEPS = sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    return build(tmp_path_factory.mktemp("dist"), "wheel", "sdist")


@pytest.fixture(scope="module")
def scripts(built, tmp_path_factory) -> Path:
    return installed(built["wheel"], tmp_path_factory.mktemp("environment") / "venv")


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_has_the_sweeps_and_the_package_and_nothing_of_the_project_around_it(built):
    names = names_in(built["wheel"])
    assert {n for n in names if n.startswith("nodebench/sweeps/")} == {
        f"nodebench/sweeps/{name}.yaml" for name in SWEEPS
    }
    assert {"nodebench/sweep/starter.yaml", "nodebench/py.typed"} <= names
    assert {n.split("/")[0] for n in names} == {
        "nodebench", f"nodebench-{nodebench.__version__}.dist-info"
    }  # fmt: skip


def test_a_wheel_that_is_built_of_the_sdist_is_the_same(built, tmp_path):
    with tarfile.open(built["sdist"]) as archive:
        assert all(".venv" not in name and "/runs/" not in name for name in archive.getnames())
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("nodebench-*")
    again = build(tmp_path / "dist", "wheel", source=source)
    assert names_in(again["wheel"]) == names_in(built["wheel"])


def test_both_pass_the_check_of_the_package_index(built):
    paths = map(str, built.values())
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *paths],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_the_version_stands_in_one_place(built):
    name = next(n for n in names_in(built["wheel"]) if n.endswith("METADATA"))
    with zipfile.ZipFile(built["wheel"]) as archive:
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Version"] == PROJECT["version"] == nodebench.__version__
    assert {"dev", "docs"} <= set(metadata.get_all("Provides-Extra"))
    named = [p for p in (ROOT / "nodebench").rglob("*.py") if PROJECT["version"] in p.read_text()]
    assert named == []


def test_a_clone_has_its_sweeps_at_its_root():
    assert shipped_sweeps() == ROOT / "sweeps"


def test_an_installed_nodebench_lists_and_plans_its_sweeps_in_an_empty_folder(scripts, tmp_path):
    listed = command(scripts, tmp_path, "sweeps")
    assert (listed.returncode, listed.stderr) == (0, "")
    lines = listed.stdout.splitlines()
    assert [line.split()[0] for line in lines] == SWEEPS
    assert all(len(line.split()) > 4 for line in lines)
    (row,) = (
        row
        for row in json.loads(command(scripts, tmp_path, "sweeps", "--json").stdout)["sweeps"]
        if row["name"] == "quickstart"
    )
    assert Path(row["file"]).is_relative_to(scripts.parent)
    assert row["shipped"] is True
    assert row["sizes"] == ["small", "full"]
    for name, words in (("quickstart", ()), ("spheres-solver", ("--small",))):
        planned = command(scripts, tmp_path, "plan", name, *words)
        assert planned.returncode == 0, planned.stderr
        assert " to run" in planned.stdout.splitlines()[-1]
        assert planned.stderr == (
            f"sweep file: {name}.yaml, which comes with nodebench {nodebench.__version__}\n"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_in_the_working_folder_comes_before_the_installed_one(scripts, tmp_path):
    text = (ROOT / "sweeps" / "quickstart.yaml").read_text().replace("[0, 1, 2]", "[7]")
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "quickstart.yaml").write_text(text)
    planned = command(scripts, tmp_path, "plan", "quickstart")
    assert planned.stderr == "sweep file: sweeps/quickstart.yaml\n"
    assert "s7" in planned.stdout
    assert "s0" not in planned.stdout
    assert "[sweeps/quickstart.yaml]" in command(scripts, tmp_path, "sweeps").stdout


@pytest.mark.slow
def test_an_installed_nodebench_runs_a_sweep_of_its_own_and_reports_in_the_working_folder(
    scripts, tmp_path
):
    done = command(
        scripts, tmp_path, "run", "spheres-solver", "--small", "--inline", "--no-track",
        "--set", "train.iterations=20", "--only", "solver.steps=2", "--only", "seed=0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("spheres-solver-small: 1 of 1 trial finished\n")
    page = (tmp_path / "reports" / "spheres-solver-small" / "README.md").read_text()
    assert "the page *Reading a report* of nodebench's documentation" in page
    assert "../../docs" not in page
    assert len(list((tmp_path / "runs" / "trials").iterdir())) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "reports"}
