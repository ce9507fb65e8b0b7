"""A process with everything imported, which forks one process for each command line.

A new Python takes seconds to import torch, Ray and MLflow; a forked one has them. It is a process
like any other: with an environment, a working folder, standard streams and an exit status of its
own. What needs a new Python, as imports and interrupts do, is started by `cli_process.start`.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import selectors
import socket
import subprocess
import sys
import traceback
import types
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NoReturn, TextIO

ROOT = Path(__file__).parents[2]
HEAVY = (
    *("typer.core", "typer.completion", "rich.progress", "rich.table", "sklearn.datasets"),
    *("nodebench.api", "nodebench.training.trial", "nodebench.report.page"),
    *("nodebench.tracking.tracker", "mlflow.store.tracking.sqlalchemy_store"),
)
"""All but `nodebench.cli`, whose consoles are as the environment of a command."""
LONGEST_ORDER = 1 << 17
"""Bytes of a command's words and environment."""


class CommandServer:
    """Runs command lines, one or several at once."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def run(
        self, folder: Path, words: tuple[str, ...], env: Mapping[str, str], streams: list[IO[str]]
    ) -> int:
        """The exit status of a command whose standard streams are the given files."""
        order = json.dumps({"folder": str(folder), "words": words, "env": dict(env)}).encode()
        assert len(order) < LONGEST_ORDER
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                files = [stream.fileno() for stream in streams]
                socket.send_fds(self._orders, [order], [*files, theirs.fileno()])
            answer = ours.recv(64)
        assert answer, "the server of commands was lost"
        return int(answer)

    def close(self) -> None:
        """Ends the server, once its commands have ended."""
        self._orders.close()
        self._process.wait()


@functools.cache
def command_server() -> CommandServer:
    """The server of this process, started when it is first needed."""
    server = CommandServer()
    atexit.register(server.close)
    return server


def main(orders: socket.socket) -> None:
    """Takes orders until the other end is closed, and answers each with its exit status."""
    _prepare()
    with selectors.DefaultSelector() as waiting:
        waiting.register(orders, selectors.EVENT_READ)
        while waiting.get_map():
            for key, _ in waiting.select():
                if key.fileobj is not orders:
                    waiting.unregister(key.fd)
                    _answer(key.fd, *key.data)
                elif ordered := _begun(orders):
                    command, answer = ordered
                    end = os.pidfd_open(command)
                    waiting.register(end, selectors.EVENT_READ, (command, answer))
                else:
                    waiting.unregister(orders)


def _prepare() -> None:
    from nodebench.execution.ray_cluster import quieten
    from nodebench.tracking.settings import configure_mlflow
    from tests.support.figures import leave_unrendered
    from tests.support.mlflow_template import use_template

    configure_mlflow()
    quieten()
    use_template()
    leave_unrendered()
    for name in HEAVY:
        importlib.import_module(name)
    _fork_the_mirror()
    gc.freeze()  # so that a fork's collector does not copy what all share


def _fork_the_mirror() -> None:
    """Has the process that writes to MLflow forked too, with MLflow imported."""
    from nodebench.tracking import background

    def get_context(_method: str) -> Any:
        is_alone = len(os.listdir("/proc/self/task")) == 1
        return multiprocessing.get_context("fork" if is_alone else "spawn")

    background.multiprocessing = types.SimpleNamespace(get_context=get_context)  # type: ignore


def _begun(orders: socket.socket) -> tuple[int, int] | None:
    """The next command's process, and where to answer; None after the last."""
    order, files, *_ = socket.recv_fds(orders, LONGEST_ORDER, 4)
    if not order:
        return None
    command = os.fork()
    if command == 0:
        _run(json.loads(order), files)
    *streams, answer = files
    for stream in streams:
        os.close(stream)
    return command, answer


def _answer(end: int, command: int, answer: int) -> None:
    """Answers with the exit status of a command that has ended."""
    _, status = os.waitpid(command, 0)
    os.write(answer, str(os.waitstatus_to_exitcode(status)).encode())
    os.close(answer)
    os.close(end)


def _opened(number: int, before: TextIO) -> TextIO:
    """A standard stream, which may be a pipe where the server's is a file."""
    how = {"encoding": before.encoding, "errors": before.errors}
    return open(number, "w", closefd=False, buffering=1 if number == 2 else -1, **how)


def _run(order: dict[str, Any], files: list[int]) -> NoReturn:
    """Is `python -m nodebench` in a folder, to its end."""
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    sys.__stdout__ = sys.stdout = _opened(1, sys.stdout)
    sys.__stderr__ = sys.stderr = _opened(2, sys.stderr)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["folder"])
    sys.argv = ["nodebench", *order["words"]]
    sys.path[0] = os.getcwd()
    try:
        runpy.run_module("nodebench", run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as Python itself does at the end
        traceback.print_exc()
        status = 1
    # Python's own end takes as long as the command: it frees each of the modules.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
