"""Ray's address and settings, for this machine or for the cluster that RAY_ADDRESS names.

Ray itself is not imported here, so that planning and pre-flight checks are instant.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nodebench.errors import ResourceError, shown
from nodebench.files import require_writable
from nodebench.planning.available_resources import cpu_count, memory_bytes
from nodebench.store.locations import variable
from nodebench.sweep.file import Resources

SESSION = "session"

SOCKET = "ray/session_2000-01-01_00-00-00_000000_1234567/sockets/plasma_store"
SOCKET_PATH_BYTES = 107  # the limit of Linux

HTTP2_SETTINGS = b"\4"
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + HTTP2_SETTINGS + bytes(5)
"""The start of a connection by gRPC, which Ray uses; the server answers with its settings."""

ANSWER_S = 10.0
LONGEST_RAY_REASON = 300
TO_BE_ALONE = "Start it, or unset RAY_ADDRESS to use only this machine"
TO_JOIN = (
    "If its head uses a token, as Ray does where `~/.ray/auth_token` exists, set RAY_AUTH_MODE to "
    "`token` and RAY_AUTH_TOKEN to the output of `ray get-auth-token` there; otherwise set "
    f"RAY_AUTH_MODE to `disabled`. {TO_BE_ALONE}"
)

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_prestart_worker_first_driver": "0",  # Tune starts its own, with other variables
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU sees none
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial's last result has no metric
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C stops at once: checkpoints exist already
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's own snapshots are never used
    "TUNE_WARN_THRESHOLD_S": "60",
}
"""The environment variables that configure Ray."""

LEAST_STORE_BYTES, MOST_STORE_BYTES = 100 * 2**20, 2**30
"""Bounds on the size of Ray's object store, which here holds only the trials' settings."""


def is_cluster_named() -> bool:
    """Whether RAY_ADDRESS is set to a cluster rather than to this machine."""
    return variable("RAY_ADDRESS") not in (None, "local")


def address() -> str | None:
    """The cluster that RAY_ADDRESS names, `host:port` or `auto`; None for this machine alone.

    Raises:
        ResourceError: if its value is not an address.
    """
    text = variable("RAY_ADDRESS")
    if text is None or not is_cluster_named():
        return None
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^][\s:/]+):(\d{1,5})", text)
    if text != "auto" and not (found and 0 < int(found[2]) < 2**16):
        raise ResourceError(
            f"RAY_ADDRESS is {shown(text)}, which is not a cluster's address. Set it to the head's "
            "`host:port` without a scheme (the default port of `ray start` is 6379), or to `auto` "
            "for the cluster that was started on this machine, or unset it to use only this machine"
        )
    return text


def require_answer(where: str) -> None:
    """Refuses a cluster that does not answer, for which Ray would wait for minutes.

    Raises:
        ResourceError: if nothing answers at `host:port`, or the server there is not Ray.
    """
    if where == "auto":
        return  # Ray finds out at once
    host, _, port = where.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S) as line:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                line.sendall(HTTP2_GREETING)
                if line.recv(4)[3:] != HTTP2_SETTINGS:
                    raise OSError("the server there is not Ray")
    except (OSError, UnicodeError) as error:
        raise ResourceError(
            f"RAY_ADDRESS is `{where}`, where no cluster answers ({error}). {TO_BE_ALONE}"
        ) from error


def _choose_token_mode(where: str | None) -> None:
    """Makes Ray send its token to a cluster given as `host:port`, if the token is meant for it.

    Ray itself sends it only for `auto`. A token in the home folder is sent only to this machine. A
    token given by a variable is meant for the cluster, which is given by a variable too.
    """
    if variable("RAY_AUTH_MODE"):
        return
    os.environ.pop("RAY_AUTH_MODE", None)  # Ray rejects an empty value
    if where is None or where == "auto":
        return
    is_given = variable("RAY_AUTH_TOKEN") or variable("RAY_AUTH_TOKEN_PATH")
    if is_given or (_is_here(where) and (_home() / ".ray" / "auth_token").exists()):
        os.environ["RAY_AUTH_MODE"] = "token"


def _is_here(where: str) -> bool:
    """Whether a `host:port` is on this machine: only its own addresses can be bound."""
    host = where.rpartition(":")[0].strip("[]")
    try:
        with socket.create_server((socket.getaddrinfo(host, 0)[0][4][0], 0)):
            return True
    except (OSError, UnicodeError):
        return False


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        return Path("/nonexistent")


def temporary_folder() -> Path:
    """The folder for the sockets and logs of a Ray started on this machine.

    RAY_TMPDIR if it is set; otherwise TMPDIR if Ray can use it; otherwise `/tmp`.

    Raises:
        ResourceError: if no such folder is writable and has a path short enough for sockets.
    """
    named = variable("RAY_TMPDIR")
    problem = ""
    for folder in [named] if named else [variable("TMPDIR"), "/tmp"]:
        if folder and not (problem := _unfit(Path(folder).absolute())):
            return Path(folder).absolute()
    raise ResourceError(
        f"{problem}. Set RAY_TMPDIR to another folder, or run without Ray (`--inline`)"
    )


def _unfit(folder: Path) -> str:
    """Why Ray cannot put its sockets in a folder; empty if it can."""
    if len(os.fsencode(folder / SOCKET)) > SOCKET_PATH_BYTES:
        return f"the path {shown(folder)} is too long for Ray's sockets"
    try:
        require_writable(folder / "ray")
    except OSError as error:
        return f"{shown(folder)} cannot be written ({error.strerror or error})"
    return ""


def one_line(text: str) -> str:
    """The beginning of a message from Ray, in one line."""
    line = " ".join(text.split()).removesuffix(".")
    return line if len(line) <= LONGEST_RAY_REASON else f"{line[:LONGEST_RAY_REASON]}…"


def settings_here() -> dict[str, Any]:
    """The arguments that start Ray on this machine, with the resources this process may use."""
    _bring_token()
    return {
        "address": "local",
        "num_cpus": cpu_count(),
        "object_store_memory": min(max(memory_bytes() // 10, LEAST_STORE_BYTES), MOST_STORE_BYTES),
        "include_dashboard": False,
        "_temp_dir": str(temporary_folder() / "ray"),
    }


def _bring_token() -> None:
    """Gives Ray's processes a token if Ray cannot store one in the home folder."""
    try:
        folder = Path.home() / ".ray"
        if not (folder / "auth_token").exists():
            require_writable(folder)
    except (OSError, RuntimeError):  # read-only, or there is no home folder
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def remove_session(storage: Path) -> None:
    """Removes a process's folder, and the session folder of the Ray that the process started."""
    session = storage / SESSION
    if session.is_symlink():
        shutil.rmtree(session.readlink(), ignore_errors=True)
    shutil.rmtree(storage, ignore_errors=True)


def quieten() -> None:
    """Sets the variables that Ray reads when it is imported or started, and quietens its logs.

    Raises:
        ResourceError: if the value of RAY_ADDRESS is not an address.
    """
    _choose_token_mode(address())
    os.environ.update(SETTINGS)
    logging.getLogger("ray").setLevel(logging.ERROR)


def require_node(resources: Resources, nodes: Sequence[Mapping[str, float]]) -> None:
    """Refuses a trial that fits no node, for which Ray would wait forever."""
    most_gpus = max((node.get("GPU", 0) for node in nodes), default=0)
    if resources.gpu_share > most_gpus:
        raise ResourceError(
            f"`resources.gpus: {_number(resources.gpus)}` per trial, but the largest node has "
            f"{most_gpus:g}. `--cpu` trains on the CPU, and `--small` uses the sweep's small form "
            "if it has one"
        )
    fitting = [node for node in nodes if node.get("GPU", 0) >= resources.gpu_share]
    most = max((node.get("CPU", 0) for node in fitting), default=0)
    if resources.cpus > most:
        raise ResourceError(
            f"`resources.cpus: {resources.cpus}` per trial, but the largest node that fits has "
            f"{most:g}. Set `resources.cpus` to {most:g} or less"
        )


def _number(amount: float | str) -> str:
    """An amount as people write it: `1`, `0.5` or `auto`."""
    return amount if isinstance(amount, str) else f"{amount:g}"
