"""A trial's id covers all code of the user's that its parts import."""

import itertools
import os
import sys
import zipfile
from pathlib import Path

import pytest

from nodebench import api
from nodebench.errors import InputError, SweepError
from nodebench.execution.preflight import require_all
from nodebench.execution.runner import Monitor, run_inline
from nodebench.planning import RunOptions, entries
from nodebench.planning.diff import inputs, nearest
from nodebench.planning.doubts import doubts
from nodebench.planning.lookup import find, load_sweep
from nodebench.spec import Trial, TrialSpec
from nodebench.spec.own_code import own_modules
from nodebench.spec.settings import MODEL_ARGUMENTS, import_part
from nodebench.store import Store
from nodebench.sweep.file import Resources
from nodebench.training.trial import run_trial
from tests.support.tiny_sweeps import TINY, options, tiny, write_tiny

NET = """
from torch import nn
from nodebench.ode.block import ODEBlock

class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, t, y):
        return self.layer(y)

def net(spec, data):
    return nn.Sequential(ODEBlock(Field(), spec.solver, spec.gradient), nn.Linear(2, 2))
"""

numbers = itertools.count()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The name of a package that no test has imported, whose files it writes."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    name = f"mine{next(numbers)}_of_{tmp_path.name}".replace("-", "_")

    def write(**files: str) -> str:
        for file, text in files.items():
            path = tmp_path / name / f"{file.replace('__of__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("PKG", name))
        own_modules.cache_clear()  # as another process would see it
        return name

    return write


def trial(name: str, **changes) -> Trial:
    base = {**TINY, "model": f"{name}:net", **changes}
    return Trial(TrialSpec.model_validate(base))


def sweep(folder: Path, name: str, **fields):
    return load_sweep(write_tiny(folder, base={**TINY, "model": f"{name}:net"}, **fields))


@pytest.mark.parametrize(
    "text",
    [
        "from .impl import net",
        "from PKG.impl import net",
        "from PKG import impl",
        "import PKG.impl",
        "def net(spec, data):\n    from .impl import net\n    return net(spec, data)",
        "try:\n    from .fast import net\nexcept ImportError:\n    from .impl import net",
        "from importlib import import_module\nnet = import_module('.impl', __name__).net",
        "import importlib\nnet = importlib.import_module('PKG.impl').net",
        "from . import between",
    ],
)
def test_code_is_followed_wherever_it_is_imported_from(package, text):
    name = package(__init__=text, between="from PKG.impl import *", impl="net = 1")
    before = trial(name)
    assert f"{name}.impl" in before.cell.code_hashes
    package(impl="net = 2")
    after = trial(name)
    assert after.id != before.id
    assert after.recipe_id != before.recipe_id
    assert name not in sys.modules


def test_a_relative_import_goes_up_from_a_module_in_a_package(package):
    name = package(__init__="", sub__of__deep="from .. import other", other="net = 1")
    assert set(own_modules(f"{name}.sub.deep")) == {f"{name}.sub.deep", f"{name}.other"}


def test_a_package_around_a_part_runs_first_and_counts(package):
    name = package(__init__="import torch", impl="net = 1")
    assert set(own_modules(f"{name}.impl")) == {name, f"{name}.impl"}


def test_modules_that_import_each_other_are_read_once(package):
    name = package(__init__="from . import a, b", a="from . import b", b="from . import a")
    assert set(own_modules(name)) == {name, f"{name}.a", f"{name}.b"}


def test_what_is_installed_and_what_is_pythons_is_no_code_of_the_user(package):
    text = (
        "import torch, numpy.linalg, os.path, sys, nodebench.training.task\n"
        "from sklearn import svm\nnet = 1"
    )
    name = package(__init__=text)
    assert set(own_modules(name)) == {name}
    assert set(own_modules("torch.nn")) == {"torch.nn"}


def test_code_that_cannot_be_read_as_python_is_hashed_all_the_same(package):
    name = package(__init__="from .impl import net", impl="def net(:")
    before = own_modules(name)
    package(impl="def net((:")
    assert own_modules(name) != before


def test_a_part_of_one_file_keeps_the_id_that_it_had(package):
    identity = trial(package(__init__="import torch\nnet = 1")).cell.identity
    assert "modules" not in identity
    [source] = identity["sources"].values()
    assert len(source) == 64
    two = {"data": f"{package(data='a = 1')}.data:a"}
    assert "modules" not in trial(package(__init__="from . import data"), **two).cell.identity


def test_a_module_that_is_not_found_is_said_and_no_other_ids_are_shown(package, tmp_path):
    path = write_tiny(tmp_path, base={**TINY, "model": "nowhere.nets:net"})
    with pytest.raises(SweepError, match=r"model.name: .* module `nowhere.nets` is not found from"):
        load_sweep(path)


def test_weights_that_are_not_found_are_said(tmp_path):
    path = write_tiny(tmp_path, base={**TINY, "weights": "gone.pt"})
    [said] = doubts(load_sweep(path))
    assert said.startswith("`weights: gone.pt` does not exist in")


def test_why_names_the_module_that_was_edited_and_its_training_is_not_continued(package, tmp_path):
    name = package(__init__="from .impl import net", impl=NET)
    store, old = Store(tmp_path / "runs"), sweep(tmp_path, name)
    run_inline(old.trials, store, options(old, tmp_path), Monitor())
    longer = {"epochs": 4, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.01}}
    base = {**TINY, "model": f"{name}:net", "train": longer}
    path = write_tiny(tmp_path, base=base)
    [same_code] = entries(load_sweep(path), store, options(old, tmp_path))
    assert same_code.continues == old.trials[0].id

    package(impl=NET + "\n# edited")
    [edited] = entries(load_sweep(path), store, options(old, tmp_path))
    assert edited.continues is None
    _, apart = nearest(sweep(tmp_path, name).trials[0], store)
    assert [difference.path for difference in apart] == [f"code of {name}.impl"]
    recorded = find(old.trials[0].id, store, None)
    assert recorded.id == old.trials[0].id
    assert f"code of {name}.impl" in inputs(recorded)


def test_code_that_is_imported_under_a_made_name_is_refused(package, tmp_path):
    hidden = "from importlib import import_module\nnet = import_module(f'{__name__}.impl').net"
    name = package(__init__=hidden, impl=NET)
    found = sweep(tmp_path, name)
    for _ in range(2):  # though nothing is imported the second time
        with pytest.raises(InputError, match=rf"`{name}.impl` is imported under a name computed"):
            api.run(found, Store(tmp_path / "runs"), inline=True, track=False)


def test_code_that_is_imported_under_a_made_name_by_the_network_ends_the_trial(package, tmp_path):
    hidden = (
        "from importlib import import_module\n"
        "def net(spec, data):\n    return import_module(f'{__name__}.impl').net(spec, data)"
    )
    name = package(__init__=hidden, impl=NET)
    found, store = sweep(tmp_path, name), Store(tmp_path / "runs")
    result = run_trial(found.trials[0], store, options(found, tmp_path))
    assert result.outcome == "error"
    assert f"`{name}.impl` is imported under a name" in result.reason


def test_code_that_is_edited_after_the_plan_is_not_trained_under_its_name(package, tmp_path):
    name = package(__init__="from .impl import net", impl=NET)
    found, store = sweep(tmp_path, name), Store(tmp_path / "runs")
    (tmp_path / name / "impl.py").write_text(f"{NET}\n# edited")  # and nothing is read anew
    with pytest.raises(InputError, match=rf"`{name}.impl` was changed after this process"):
        api.run(found, store, inline=True, track=False)
    assert not store.trial_ids()

    package()  # another process, such as a worker of Ray's, reads it now
    result = run_trial(found.trials[0], store, options(found, tmp_path))
    assert result.outcome == "error"
    assert "was changed after the sweep was planned" in result.reason


def test_code_in_a_zip_file_decides_an_id_like_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = f"zipped_of_{tmp_path.name}".replace("-", "_")
    found = []
    for width in (2, 3):
        archive = tmp_path / f"parts{width}.zip"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(f"{name}/__init__.py", "from .impl import net\n")
            file.writestr(f"{name}/impl.py", NET.replace("2)", f"{width})"))
        monkeypatch.setattr(sys, "path", [str(archive), *sys.path[-5:]])
        own_modules.cache_clear()
        found.append((own_modules(name), trial(name).id))
    assert set(found[0][0]) == {name, f"{name}.impl"}
    assert found[0][0][name] == found[1][0][name]
    assert found[0][0][f"{name}.impl"] != found[1][0][f"{name}.impl"]
    assert found[0][1] != found[1][1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("net = 3", "has the type `int`, which cannot be called"),
        (
            "def net(width=2, **more):\n    pass",
            "is called as `net(spec, data)`, but its signature is `net(width=2, **more)`: too many",
        ),
        ("import sys\nsys.exit(3)", "/net.py`, line 2: SystemExit: 3"),
        ("import argparse\nargparse.ArgumentParser().parse_args(['x'])", "/net.py`, line 2: Sys"),
    ],
)
def test_a_part_that_cannot_be_one_is_refused_by_the_line_that_is_wrong(package, text, reason):
    name = package(__init__="", net=text)
    with pytest.raises(InputError) as caught:
        import_part(f"{name}.net:net", MODEL_ARGUMENTS)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def net(spec, data):\n    pass", "a `NoneType`: let it return a `torch.nn.Module`"),
        ("import sys\ndef net(spec, data):\n    sys.exit(0)", "its code calls `sys.exit(0)`"),
        (f"import sys\n{NET.replace('return self.layer(y)', 'sys.exit()')}", "`sys.exit(None)`"),
    ],
)  # fmt: skip
def test_a_network_that_is_none_or_leaves_python_is_an_error(package, tmp_path, text, reason):
    name = package(__init__=text)
    one = trial(name)
    result = run_trial(one, Store(tmp_path / "runs"), options_of(tmp_path))
    assert result.outcome == "error"
    assert reason in result.reason


def options_of(folder):
    return RunOptions(folder, Resources())


def test_weights_that_are_replaced_make_other_trials_within_one_process(tmp_path):
    file = tmp_path / "begin.pt"
    file.write_bytes(b"one")
    path = write_tiny(tmp_path, base={**TINY, "weights": str(file)})
    [planned] = load_sweep(path).trials
    assert planned.id == load_sweep(path).trials[0].id
    planned.require_as_named()
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))  # as written in the same tick of a coarse clock, were it not later
    assert load_sweep(path).trials[0].id != planned.id
    with pytest.raises(InputError, match="its code or its weights file was changed"):
        planned.require_as_named()


def test_weights_that_were_replaced_since_the_plan_are_refused_before_anything_starts(tmp_path):
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    run_trial(sweep.trials[0], store, options(sweep, tmp_path))
    file = tmp_path / "begin.pt"
    file.write_bytes(store.folder(sweep.trials[0].id).checkpoint.read_bytes())
    begun = tiny(tmp_path, base={**TINY, "weights": str(file)})
    how = options(begun, tmp_path)
    require_all(begun.trials, how, inline=True)
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(InputError, match="its code or its weights file was changed"):
        require_all(begun.trials, how, inline=True)
