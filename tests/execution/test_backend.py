"""A launch with a single training runs in its own process, unless something asks for Ray."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from nodebench import api
from nodebench.execution.runner import Backend, Monitor, run_inline
from nodebench.planning.options import options_for
from nodebench.store import Store
from nodebench.sweep.file import Stop
from tests.support.tiny_sweeps import options, tiny

PACKED = {"seeds": [0, 1], "resources": {"pack_seeds": 2}}


def is_inline(sweep, *, inline=None):
    return Backend(inline).is_inline(sweep.trials, options_for(sweep))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, True),
        ({"seeds": [0, 1]}, False),
        (PACKED, True),
        ({"seeds": [0, 1, 2], "resources": {"pack_seeds": 2}}, False),
    ],
)
def test_a_single_trial_or_pack_needs_no_ray(tmp_path, fields, expected):
    assert is_inline(tiny(tmp_path, **fields)) is expected


@pytest.mark.parametrize("asked", [True, False])
def test_whoever_asks_for_a_place_gets_it(tmp_path, asked):
    assert is_inline(tiny(tmp_path), inline=asked) is asked
    assert is_inline(tiny(tmp_path, seeds=[0, 1]), inline=asked) is asked


@pytest.mark.parametrize(("address", "expected"), [("head:6379", False), ("local", True)])
def test_a_single_trial_is_sent_to_a_cluster_that_is_named(
    tmp_path, monkeypatch, address, expected
):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert is_inline(tiny(tmp_path)) is expected


def test_a_search_that_ends_trials_early_needs_ray(tmp_path):
    sweep = tiny(tmp_path)
    assert not Backend().is_inline(sweep.trials, replace(options_for(sweep), stop=Stop()))


def test_a_single_trial_runs_where_ray_cannot_be_imported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "nodebench.execution.ray_tune", raising=False)
    how = {"track": False, "write_report": False}
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    assert api.run(sweep, store, Monitor(), **how).complete


def test_trials_of_this_process_leave_its_threads_as_they_were(tmp_path):
    torch.set_num_threads(2)
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    run_inline(sweep.trials, store, options(sweep, tmp_path), Monitor())
    assert store.folder(sweep.trials[0].id).result().environments[0]["threads"] == 1
    assert torch.get_num_threads() == 2


def test_a_monitor_has_only_the_methods_that_it_needs(tmp_path):
    ended = []

    class Ends(Monitor):
        def on_end(self, trial_id, problem):
            ended.append((trial_id, problem))

    sweep, how = tiny(tmp_path), {"inline": True, "track": False, "write_report": False}
    api.run(sweep, Store(tmp_path / "runs"), Ends(), **how)
    assert ended == [(sweep.trials[0].id, None)]
