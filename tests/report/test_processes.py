"""Helpers in drawing, and what becomes of a report if they fail."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from nodebench.report.figures import processes
from tests.support.figures import helpers

UNGUARDED = """
from nodebench.report.figures import processes
import os, time
with processes.helpers():
    print(len(processes.share([os.getpid, time.time, os.getpid])), "results")
    print(*[each._process.pid for each in processes._helpers], flush=True)
"""


def lasting(seconds: float) -> int:
    """The process that took the task."""
    time.sleep(seconds)
    return os.getpid()


def ended_elsewhere(own: int) -> str:
    if os.getpid() != own:
        os._exit(1)
    return "drawn here"


def test_tasks_are_shared_and_their_results_are_in_order():
    with helpers(2):
        found = processes.share([partial(lasting, 0.3) for _ in range(12)])
        assert len(set(found)) == 3
        assert processes.share([partial(pow, 2, n) for n in range(5)]) == [1, 2, 4, 8, 16]


def test_a_helper_that_is_lost_costs_no_result():
    with helpers(1):
        tasks = [partial(lasting, 1.0), partial(ended_elsewhere, os.getpid()), os.getpid]
        *_, lost, last = processes.share(tasks)
    assert (lost, last) == ("drawn here", os.getpid())


def test_a_task_that_cannot_be_sent_is_done_here():
    with helpers(1):
        assert processes.share([partial(lasting, 1.0), lambda: "a lambda"])[1] == "a lambda"


def interrupted_in(own: int) -> None:
    if os.getpid() == own:
        raise KeyboardInterrupt
    time.sleep(30)


def test_an_interrupt_waits_for_no_helper():
    with helpers(1):
        process = processes._helpers[0]._process
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            processes.share([partial(interrupted_in, os.getpid()) for _ in range(4)])
        assert time.monotonic() - start < 5
        assert process.poll() is not None


def test_helpers_need_no_main_guard_and_end_with_their_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert (done.stdout.splitlines()[0], done.stderr) == ("3 results", "")
    script.write_text(f"{UNGUARDED}    time.sleep(60)\n")
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        pids = [int(pid) for pid in driver.stdout.readline().split()]
        driver.kill()
    assert pids
    deadline = time.monotonic() + 30
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIG_DFL)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().split()[2] != "Z"
