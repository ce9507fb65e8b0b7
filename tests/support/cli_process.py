"""The command line, as a user types it."""

import os
import subprocess
import sys
import tempfile

from tests.support.command_server import command_server
from tests.support.tiny_sweeps import heeding_interrupts

NODEBENCH = [sys.executable, "-m", "nodebench"]


def command(folder, *arguments, env=None, input="", stdout=None):  # noqa: A002 - as of `subprocess`
    """What a command says and its exit status, in a process with everything imported.

    What it prints to a `stdout` of the test's own is not read.
    """
    with (
        tempfile.TemporaryFile("w+") as stdin,
        stdout or tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        stdin.write(input)
        stdin.seek(0)
        status = command_server().run(
            folder, arguments, os.environ if env is None else env, [stdin, out, err]
        )
        said = ["" if file is stdout else file.seek(0) or file.read() for file in (out, err)]
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
