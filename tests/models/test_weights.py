"""Tests of weights from elsewhere: `weights`, and `evaluate --weights`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nodebench.api import evaluate, run
from nodebench.errors import InputError
from nodebench.execution.runner import Monitor
from nodebench.models.weights import read_tensors
from nodebench.planning.lookup import foreign
from nodebench.report.analysis.verdict import judge
from nodebench.store import Store
from nodebench.training.checkpoint import trained_model
from nodebench.training.trial import run_trial
from tests.support.tiny_sweeps import TINY, options, tiny, write_tiny

BLOCK = {"methods": ["euler"], "steps": [2, 4]}


@pytest.mark.usefixtures("coarse_reference")
@pytest.mark.parametrize("form", ["state_dict", "checkpoint"])
def test_weights_of_another_place_are_evaluated_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep, store = tiny(tmp_path, seeds=[3], evaluate=BLOCK), Store(tmp_path / "runs")
    trial = sweep.trials[0]
    result = run_trial(trial, store, options(sweep, tmp_path))
    folder = store.folder(trial.id)
    weights = folder.checkpoint
    if form == "state_dict":
        weights = tmp_path / "mine #1.pt"
        torch.save(trained_model(folder, tmp_path).state_dict(), weights)
    copy = foreign(write_tiny(tmp_path, seeds=[3], evaluate=BLOCK), weights)
    assert copy.name == f"tiny-{trial.id if form == 'checkpoint' else 'mine--1'}"
    outcome = evaluate(copy, store, Monitor(), inline=True, track=False)
    (entry,) = outcome.entries
    assert outcome.complete and entry.result is not None
    assert entry.result.summary["test_accuracy"] == result.summary["test_accuracy"]
    assert entry.result.summary["test_loss"] == result.summary["test_loss"]
    accuracies = [
        [row["accuracy"] for row in store.folder(t.id).evaluations()]
        for t in (trial, copy.trials[0])
    ]
    assert accuracies[0] == accuracies[1]
    assert judge(copy.trials[0], copy, store) == judge(trial, sweep, store)
    assert outcome.page is not None
    assert "The trial finished." in outcome.page.read_text()


def test_another_file_of_weights_is_another_trial(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(b"one")
    before = tiny(tmp_path, base={**TINY, "weights": str(path)}).trials[0].id
    other = tmp_path / "other.pt"
    other.write_bytes(b"two")
    assert tiny(tmp_path, base={**TINY, "weights": str(other)}).trials[0].id != before
    copied = tmp_path / "copied.pt"
    copied.write_bytes(b"one")
    assert tiny(tmp_path, base={**TINY, "weights": str(copied)}).trials[0].id == before


def test_training_goes_on_from_weights(tmp_path: Path) -> None:
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    run_trial(sweep.trials[0], store, options(sweep, tmp_path))
    checkpoint = str(store.folder(sweep.trials[0].id).checkpoint)
    on = tiny(tmp_path, base={**TINY, "weights": checkpoint})
    run_trial(on.trials[0], store, options(on, tmp_path))
    first, second = (store.folder(s.trials[0].id).history() for s in (sweep, on))
    assert second[0]["train_loss"] < first[0]["train_loss"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"no weights", "cannot be read"),
        ({"head.weight": torch.zeros(2, 2)}, "`head.bias` is missing"),
        ({"head.weight": torch.zeros(3, 2)}, r"`head.weight` is \[3, 2\], should be \[2, 2\]"),
        ({"tail": torch.zeros(1)}, "`tail` is not in the network"),
    ],
    ids=["missing", "damaged", "incomplete", "shape", "unknown"],
)
def test_weights_that_do_not_fit_are_refused_before_anything_starts(
    tmp_path: Path, content: object, message: str
) -> None:
    path = tmp_path / "w.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    sweep = tiny(tmp_path, base={**TINY, "weights": str(path)})
    store = Store(tmp_path / "runs")
    with pytest.raises(InputError, match=message):
        run(sweep, store, Monitor(), inline=True, track=False)
    assert not (store.root / "trials").exists()


def test_weights_of_plain_convolutions_fit_a_folded_field(tmp_path: Path) -> None:
    sweep, store = tiny(tmp_path, seeds=[3]), Store(tmp_path / "runs")
    run_trial(sweep.trials[0], store, options(sweep, tmp_path))
    model = trained_model(store.folder(sweep.trials[0].id), tmp_path)
    plain = {
        name.replace("parametrizations.", "").removesuffix(".original"): value
        for name, value in model.state_dict().items()
    }
    assert plain.keys() != model.state_dict().keys()
    torch.save(plain, tmp_path / "w.pt")
    base = {**TINY, "weights": str(tmp_path / "w.pt"), "train": {"iterations": 0}}
    copy = tiny(tmp_path, base=base, seeds=[3])
    found = run_trial(copy.trials[0], store, options(copy, tmp_path))
    expected = store.folder(sweep.trials[0].id).result()
    assert expected is not None
    assert found.summary["test_loss"] == expected.summary["test_loss"]


def test_weights_of_an_adapted_training_come_with_its_solver(tmp_path: Path) -> None:
    solver = {"method": "euler", "adapt": {"every": 1, "max_steps": 9}}
    sweep, store = tiny(tmp_path, base={**TINY, "solver": solver}), Store(tmp_path / "runs")
    result = run_trial(sweep.trials[0], store, options(sweep, tmp_path))
    weights = str(store.folder(sweep.trials[0].id).checkpoint)
    base = {**TINY, "solver": solver, "weights": weights, "train": {"iterations": 0}}
    copy = tiny(tmp_path, base=base, evaluate={"methods": ["euler"], "step_factors": [1]})
    run_trial(copy.trials[0], store, options(copy, tmp_path))
    own = store.folder(copy.trials[0].id).evaluations()[0]
    assert own["solver"]["step_size"] == result.summary["step_size"]


def test_a_file_by_a_pickle_protocol_that_torch_cannot_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "old.pt"
    torch.save({"layer": torch.ones(2)}, file, pickle_protocol=0)  # of which torch also warns
    with pytest.raises(ValueError, match="UnpicklingError"):
        read_tensors(file)
