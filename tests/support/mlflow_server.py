"""An MLflow server, and a PostgreSQL for it, that tests start, kill and start again."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Server:
    """`mlflow server` over a database; its artifacts in a folder."""

    def __init__(self, folder: Path, database: str):
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._log = folder / "server.log"
        self._command = [
            *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database),
            *("--artifacts-destination", str(folder / "artifacts"), "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(self.port)),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that its own processes can be killed with it
                cwd=self._log.parent,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # quicker
            )
        deadline = time.monotonic() + 200
        while not self._is_healthy():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        """kill -9, of all its processes."""
        if self._process is not None:
            with suppress(ProcessLookupError):  # it could not start
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def postgres() -> Iterator[str]:
    """A new PostgreSQL, thrown away at the end; gives the address of a database in it."""
    # Not under pytest's folder, which only its owner may enter: postgres does not run as root.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    who = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    port, data = free_port(), str(folder / "data")
    settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"

    def call(*command: str) -> None:
        with (folder / "log.txt").open("ab") as log:
            subprocess.run(command, check=True, cwd=folder, stdout=log, stderr=log, **who)

    try:
        call("initdb", "-D", data, "-U", "nodebench", "-A", "trust", "-E", "UTF8", "--locale", "C")
        call("pg_ctl", "-D", data, "-o", settings, "-w", "start")
        try:
            yield f"postgresql+psycopg2://nodebench@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
