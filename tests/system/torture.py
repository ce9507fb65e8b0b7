"""Sixty short trials, fifty kills: is anything lost, doubled or changed? `make torture`.

Random processes of a sweep under Ray are killed with SIGKILL at random moments: the driver, its
workers, Ray's own processes, the one that writes to MLflow, or all of them at once. After each
kill that ended the driver the same command is given again. One undisturbed run follows, and its
store and MLflow are compared with those of a sweep that was never disturbed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from nodebench.store import Store
from tests.support.mlflow_contents import mlflow_points
from tests.support.tiny_sweeps import histories, tiny, write_tiny

NODEBENCH = [sys.executable, "-m", "nodebench", "run", "tiny.yaml"]
HANGS_S = 300.0
"""A driver that is alive and gets nothing done for so long hangs."""

BASE = {
    "data": {"name": "spheres", "train_size": 640, "test_size": 32},
    "model": {"name": "plainode", "width": 8},
    "solver": {"method": "euler", "steps": 4},
    "train": {"epochs": 50, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.001}},
}


KINDS = {
    "raylet": "raylet",
    "gcs_server": "gcs",
    "spawn_main": "mirror",
    "ray::IDLE": "idle worker",
    "ray::": "worker",
}
"""What is found in a process's name or command -> what it is."""


def main() -> None:
    """Tortures a sweep, compares, and ends with a line that says how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--within", type=float, default=20.0, help="seconds between two kills")
    settings = parser.parse_args()
    fields = {"base": BASE, "seeds": list(range(settings.trials))}
    with tempfile.TemporaryDirectory() as temporary:
        whole, broken = Path(temporary, "whole"), Path(temporary, "broken")
        for folder in (whole, broken):
            folder.mkdir()
            write_tiny(folder, **fields)
        killed = torture(broken, random.Random(settings.seed), settings.kills, settings.within)
        for folder in (broken, whole):
            subprocess.run(NODEBENCH, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        sweep = tiny(Path(temporary), **fields)
        stores = [Store(folder / "runs") for folder in (whole, broken)]
        points = [mlflow_points(store.root / "mlflow.db") for store in stores]
        problems = []
        if sum(killed.values()) < settings.kills:
            problems.append("the sweep was complete too soon")
        if histories(sweep, stores[0]) != histories(sweep, stores[1]):
            problems.append("histories differ")
        if points[0] != points[1]:
            problems.append("points in MLflow differ")
        if len(points[1]) != settings.trials:
            problems.append(f"{len(points[1])} runs instead of {settings.trials}")
        if leftovers := list(stores[1].root.glob("trials/*/.*.partial")):
            problems.append(f"left behind: {leftovers}")
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(killed.items()))
    print(
        f"torture, seed {settings.seed}: {settings.trials} trials, {sum(killed.values())} kills "
        f"({kinds}); {len(points[1])} runs in MLflow, each once, "
        f"{sum(map(len, points[1].values()))} points: "
        + ("FAILED: " + "; ".join(problems) if problems else "equal bit for bit to the undisturbed")
    )
    sys.exit(bool(problems))


def torture(folder: Path, chance: random.Random, kills: int, within: float) -> Counter[str]:
    """Kills so many processes of the sweep in this folder; counts them by kind."""
    killed: Counter[str] = Counter()
    driver: subprocess.Popen[bytes] | None = None
    seen, since = 0, time.monotonic()
    while sum(killed.values()) < kills:
        if driver is None or driver.poll() is not None:
            driver = start(folder)
        time.sleep(chance.uniform(0, within))
        if driver.poll() == 0:
            print(f"torture: the sweep was complete after {sum(killed.values())} kills")
            break
        if (now := progress(folder)) != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > HANGS_S:
            sys.exit(f"torture: nothing has happened for {HANGS_S:.0f} s; killed so far: {killed}")
        if kind := kill_one(driver, chance):
            killed[kind] += 1
        print(f"torture: {sum(killed.values())} killed, {killed}", flush=True)
    if driver is not None and driver.poll() is None:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    return killed


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The sweep's driver, in a process group of its own."""
    log = (folder / "driver.log").open("ab")
    return subprocess.Popen(
        NODEBENCH, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )


def kill_one(driver: subprocess.Popen[bytes], chance: random.Random) -> str | None:
    """Kills the whole group, the driver, or a process below it; says which kind, if it was there.

    Each kind of process is as likely, however many there are of it.
    """
    if driver.poll() is not None:
        return None
    below = psutil.Process(driver.pid).children(recursive=True)
    kinds: dict[str, list[psutil.Process]] = {"group": [], "driver": []}
    for process in sorted(below, key=lambda process: process.pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            kinds.setdefault(kind_of(process), []).append(process)
    kind = chance.choice(sorted(kinds))
    if kind in ("group", "driver"):
        (os.killpg if kind == "group" else os.kill)(driver.pid, signal.SIGKILL)
        driver.wait()
        return kind
    try:
        chance.choice(kinds[kind]).kill()
    except psutil.NoSuchProcess:
        return None
    return kind


def kind_of(process: psutil.Process) -> str:
    """What a process below the driver is."""
    name, words = process.name(), " ".join(process.cmdline())
    for part, kind in KINDS.items():
        if part in name or part in words.split(" --", 1)[0]:
            return kind
    return "other of Ray's"


def progress(folder: Path) -> int:
    """Grows with every line that a trial or the driver logs."""
    logs = [*folder.glob("runs/trials/*/log.txt"), folder / "driver.log"]
    return sum(log.stat().st_size for log in logs)


if __name__ == "__main__":
    main()
