"""Processes that keep MLflow up to date, forked from one that has MLflow imported.

A spawned one takes seconds to import it. Each has the environment of whoever starts it.
"""

import contextlib
import multiprocessing
import os
import types
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from nodebench.tracking import background

ROOT = Path(__file__).parents[2]
SPAWNING = background.multiprocessing


def fork_writers() -> None:
    """From now on this process forks them, from a server that is started for the first."""
    multiprocessing.set_forkserver_preload(["tests.support.with_mlflow"])
    background.multiprocessing = types.SimpleNamespace(get_context=_context)


@contextlib.contextmanager
def spawned_writers():
    """For a test of how nodebench itself starts them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(background, "multiprocessing", SPAWNING)
        yield


def _context(_method: str) -> Any:
    context = multiprocessing.get_context("forkserver")

    def process(target: Callable[..., None], args: tuple[Any, ...], daemon: bool) -> BaseProcess:
        with contextlib.chdir(ROOT):  # where it finds what it imports
            forkserver.ensure_running()
        environment = dict(os.environ)
        return context.Process(target=_within, args=(environment, target, args), daemon=daemon)

    return types.SimpleNamespace(Pipe=context.Pipe, Process=process)


def _within(
    environment: dict[str, str], target: Callable[..., None], args: tuple[Any, ...]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target(*args)
