"""The command line, as a user types it."""

import subprocess
import sys

from tests.support.tiny_sweeps import heeding_interrupts

NODEBENCH = [sys.executable, "-m", "nodebench"]


def command(folder, *arguments, **options):
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
