"""Processes that draw figures."""

import os
from functools import partial

import pytest

from nodebench.report.figures import processes
from tests.support.figures import side_by_side


def test_figures_are_drawn_in_other_processes_whose_errors_arrive():
    with side_by_side(), processes.drawers() as begin:
        assert begin(os.getpid)() != os.getpid()
        with pytest.raises(ValueError, match="invalid literal"):
            begin(partial(int, "a figure"))()


def test_figures_are_drawn_in_this_process_before_the_server_is_started():
    with side_by_side():
        processes.start_server.cache_clear()
        with processes.drawers() as begin:
            assert begin(os.getpid)() == os.getpid()


def test_figures_are_drawn_in_this_process_if_the_server_cannot_be_started(monkeypatch):
    def refuse():
        raise OSError("AF_UNIX path too long")

    with side_by_side():
        processes.start_server.cache_clear()
        monkeypatch.setattr(processes.forkserver, "ensure_running", refuse)
        assert processes.start_server() is None
        with processes.drawers() as begin:
            assert begin(os.getpid)() == os.getpid()
    processes.start_server.cache_clear()
