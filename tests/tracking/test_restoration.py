"""Tests of tracking/restoration.py."""

import shutil

import pytest

from tests.support.tiny_sweeps import essence, tiny

pytest.importorskip("mlflow")

from nodebench.errors import TrackingError
from nodebench.report.analysis import frames
from nodebench.store import Store
from nodebench.tracking.restoration import restored_store
from nodebench.tracking.tracker import Tracker

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # MLflow's own code warns
    pytest.mark.usefixtures("coarse_reference"),
]


def test_the_store_deleted_is_restored_from_mlflow(trained):
    sweep, store = trained
    Tracker(sweep, store).update_all()
    expected = frames.result_frame(sweep, store), frames.evaluation_frame(sweep, store)
    history = essence(store.folder(sweep.trials[0].id).history())
    shutil.rmtree(store.root / "trials")
    with restored_store(sweep, store) as copy:
        found = frames.result_frame(sweep, copy), frames.evaluation_frame(sweep, copy)
        assert all(frame.equals(again) for frame, again in zip(expected, found, strict=True))
        assert essence(copy.folder(sweep.trials[0].id).history()) == history
    assert not copy.root.exists()


def test_restoring_an_experiment_that_is_not_there_says_so(tmp_path):
    sweep = tiny(tmp_path)
    restored = restored_store(sweep, Store(tmp_path / "runs"))
    with pytest.raises(TrackingError, match="no experiment `tiny`"), restored:
        pass
