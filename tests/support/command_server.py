"""A process with everything imported, which forks one process for each command line.

A new Python takes seconds to import torch, Ray and MLflow; a forked one has them. It is a process
like any other: with an environment, a working folder, standard streams and an exit status of its
own. What needs a new Python, as imports and interrupts do, is started by `cli_process.start`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import select
import selectors
import socket
import subprocess
import sys
import traceback
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NoReturn, TextIO

from nodebench.store.lock import locked
from tests.support.session import FOLDER

ROOT = Path(__file__).parents[2]
HEAVY = (
    *("typer.core", "typer.completion", "rich.progress", "rich.table"),
    *("nodebench.api", "nodebench.training.trial", "nodebench.report.page"),
    *("nodebench.tracking.tracker", "mlflow.store.tracking.sqlalchemy_store"),
)
"""All but `nodebench.cli`, whose consoles are as the environment of a command."""
ADDRESS = "commands"
STARTING_S = 100.0
LONGEST_ORDER = 1 << 17
"""Bytes of a command's words and environment."""


class CommandServer:
    """Runs command lines, one or several at once; all processes of a session have the same."""

    def __init__(self) -> None:
        self._orders = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process: subprocess.Popen[bytes] | None = None
        address = Path(os.environ[FOLDER]) / ADDRESS
        with _alone(address):
            try:
                self._orders.connect(str(address))
            except (FileNotFoundError, ConnectionRefusedError):
                self._process = _started(address)
                self._orders.connect(str(address))

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
        """Takes leave; the server ends with the last process that does."""
        self._orders.close()
        if self._process:
            self._process.wait()


def _alone(address: Path) -> contextlib.AbstractContextManager[None]:
    """Nobody else starts, finds or ends the server meanwhile."""
    return locked(address.with_suffix(".lock"), str(address), STARTING_S)


def _started(address: Path) -> subprocess.Popen[bytes]:
    """A server that can be spoken to at once, though it answers when all is imported."""
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(address))
        listener.listen()
        return subprocess.Popen(
            [sys.executable, "-m", __name__, str(listener.fileno())],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
        )


@functools.cache
def command_server() -> CommandServer:
    """The server of this process, started when it is first needed."""
    server = CommandServer()
    atexit.register(server.close)
    return server


def main(listener: socket.socket) -> None:
    """Takes orders until nobody is left to give any, and answers each with its exit status."""
    _prepare()
    with selectors.DefaultSelector() as waiting:

        def wait_for(file: Any, then: Callable[..., None], *arguments: Any) -> None:
            waiting.register(file, selectors.EVENT_READ, (then, arguments))

        def welcome() -> None:
            orders, _ = listener.accept()
            wait_for(orders, take, orders)

        def take(orders: socket.socket) -> None:
            if ordered := _begun(orders):
                command, answer = ordered
                end = os.pidfd_open(command)
                wait_for(end, finish, end, command, answer)
            else:
                waiting.unregister(orders)
                orders.close()

        def finish(end: int, command: int, answer: int) -> None:
            waiting.unregister(end)
            _answer(end, command, answer)

        welcome()
        wait_for(listener, welcome)
        while len(waiting.get_map()) > 1 or not _is_left(listener):
            for key, _ in waiting.select():
                then, arguments = key.data
                then(*arguments)


def _is_left(listener: socket.socket) -> bool:
    """Whether nobody has come since the last one left; if so, nobody finds the server any more."""
    address = Path(listener.getsockname())
    if not address.exists():  # the session is over
        return True
    with _alone(address):
        if select.select([listener], [], [], 0)[0]:
            return False
        address.unlink()
        return True


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

    background.multiprocessing = types.SimpleNamespace(get_context=get_context)


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
