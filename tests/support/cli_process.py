"""The command line, as a user types it."""

import os
import subprocess
import sys
import tempfile

from tests.support.command_server import command_server
from tests.support.tiny_sweeps import heeding_interrupts

NODEBENCH = [sys.executable, "-m", "nodebench"]


def command(folder, *arguments, env=None, input=""):  # noqa: A002 - as of `subprocess.run`
    """What a command says and its exit status, in a process with everything imported."""
    with (
        tempfile.TemporaryFile("w+") as stdin,
        tempfile.TemporaryFile("w+") as stdout,
        tempfile.TemporaryFile("w+") as stderr,
    ):
        stdin.write(input)
        stdin.seek(0)
        status = command_server().run(
            folder, arguments, os.environ if env is None else env, [stdin, stdout, stderr]
        )
        said = [file.seek(0) or file.read() for file in (stdout, stderr)]
    return subprocess.CompletedProcess(arguments, status, *said)


def new_python(folder, *arguments, **options):
    """The same in a new Python, which has nothing imported."""
    return subprocess.run(
        [*NODEBENCH, *arguments], cwd=folder, capture_output=True, text=True, check=False, **options
    )


def start(folder, *arguments):
    return subprocess.Popen(
        [*NODEBENCH, *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heeding_interrupts,
    )
