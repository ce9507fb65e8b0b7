"""What the rooms promise beyond their imports, which import-linter checks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nodebench
from nodebench.data.dataset import Data, Split
from nodebench.execution import launch
from nodebench.files import PACKAGE
from nodebench.ode.block import ODEBlock

ROOT = Path(__file__).parents[2]


def test_the_package_is_what_freshness_and_commits_are_looked_for_in() -> None:
    assert PACKAGE == ROOT / "nodebench"
    assert (PACKAGE / "report" / "analysis" / "published.yaml").exists()


def test_trials_are_tagged_with_the_commit_of_the_code() -> None:
    head = subprocess.check_output(
        ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"], text=True
    ).strip()
    assert launch.code_version()["commit"] == head


def test_what_users_parts_are_made_of_is_there_and_imported_at_first_use() -> None:
    assert (nodebench.Data, nodebench.Split) == (Data, Split)
    assert nodebench.ODEBlock is ODEBlock
    code = "import nodebench, sys; print('torch' in sys.modules, 'ODEBlock' in dir(nodebench))"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.split() == ["False", "True"]


def test_a_name_that_nodebench_lacks_is_an_attribute_error() -> None:
    assert not hasattr(nodebench, "nothing")
