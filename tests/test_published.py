from __future__ import annotations

from pathlib import Path

import pytest

from nodebench.expansion import agrees
from nodebench.report.published import Published, about, shown, studies
from nodebench.sweep import load

SWEEPS = Path(__file__).parent.parent / "sweeps"
ENTRIES = [(sweep, entry) for sweep, study in studies().items() for entry in study.numbers]


@pytest.mark.parametrize("name", studies())
def test_every_published_number_belongs_to_one_cell_of_its_sweep(name: str) -> None:
    sweep = load(SWEEPS / f"{name}.yaml")
    for entry in studies()[name].numbers:
        cells = {sweep.cell_label(t) for t in sweep.trials if agrees(t.spec, entry.cell)}
        assert len(cells) == 1, entry
        assert any(entry in about(name, trial.spec) for trial in sweep.trials)


@pytest.mark.parametrize(("sweep", "entry"), ENTRIES, ids=str)
def test_a_published_accuracy_is_a_share(sweep: str, entry: Published) -> None:
    if entry.metric == "test_accuracy":
        assert 0.1 <= entry.value <= 1
    else:
        assert entry.value > 1


def test_no_cell_has_two_published_numbers_of_one_kind() -> None:
    for study in studies().values():
        kinds = [(str(sorted(entry.cell.items())), entry.what) for entry in study.numbers]
        assert len(set(kinds)) == len(kinds)


def test_a_small_sweep_shows_the_numbers_of_its_full_size() -> None:
    sweep = load(SWEEPS / "mnist-resnet-odenet.yaml", small=True)
    found = {sweep.cell_label(t): shown(sweep.name, t.spec) for t in sweep.trials}
    assert found["resnet 6"] == "99.66"
    assert found["mlp"] == "98.4"


def test_a_small_sweep_on_other_data_shows_no_published_numbers() -> None:
    for name in ("odenet4-normalization", "odenet10-normalization"):
        sweep = load(SWEEPS / f"{name}.yaml", small=True)
        assert {shown(sweep.name, trial.spec) for trial in sweep.trials} == {""}


def test_a_published_number_is_shown_with_its_spread_or_how_it_was_found() -> None:
    cell = {"model.name": "resnet"}
    plain = Published(cell=cell, value=0.987, spread=0.01, n=5, source="")
    assert str(plain) == "98.7 ± 1 (n = 5)"
    assert str(Published(cell=cell, value=0.97, read_off=True, source="")) == "~97"
    limit = Published(cell=cell, under="limit", value=0.5, source="")
    assert (str(limit), limit.what) == ("50", "test accuracy %, at the limit")
