"""`python -m benchmarks [NAME ...]`: measures, and writes `benchmarks/results/<device>.md`."""

from __future__ import annotations

import argparse
import importlib.metadata
import inspect
import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks import adaptive, data, steps, sweeps
from benchmarks.measure import Row
from benchmarks.peers import process
from nodebench.planning.available_resources import cpu_count
from nodebench.training.machine import environment, keep_freed_memory, select_device

BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
    "small-domain": steps.small_domain,
    "adaptive-small": adaptive.small_fields,
    "adaptive-image": adaptive.image_network,
    "image-network": steps.image_network,
    "exact": steps.exact_gradient,
    "growth": steps.growth,
    "data": data.augmented_images,
    "throughput": sweeps.throughput,
    "trivial": sweeps.trivial_trials,
    "report": sweeps.report_of_many,
    "overhead": sweeps.overhead,
}

ABOUT = """\
Each ratio is the peer's time over ours: above 1, ours is faster. It is the median over the rounds
of one run, which time both in turn; the range is that of single rounds. The goals are the
project's own. `make bench` writes this page.
"""


def main() -> None:
    """Runs the benchmarks that are named, or all, and keeps the others' last results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], metavar="NAME")
    parser.add_argument("--threads", type=int, default=cpu_count())
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    keep_freed_memory()  # as trials do
    here = environment(select_device(float(torch.cuda.is_available())))
    results = Path(__file__).parent / "results"
    store = results / f"{_file_name(here['hardware'])}.json"
    found: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}
    for name in settings.names or BENCHMARKS:
        print(f"{name} ...", flush=True)
        rows = [asdict(row) for row in BENCHMARKS[name]()]
        found[name] = {"rows": rows, "where": _where(here), "day": time.strftime("%Y-%m-%d")}
        results.mkdir(exist_ok=True)
        store.write_text(json.dumps(found, indent=1))
        store.with_suffix(".md").write_text(page(here["hardware"], found))
        print(table(rows), flush=True)


def page(hardware: str, found: dict[str, Any]) -> str:
    """All results on one device."""
    sections = [f"# Benchmarks: {hardware}", ABOUT]
    for name in BENCHMARKS:
        if name in found:
            facts = f"{found[name]['day']}; {found[name]['where']}"
            about = inspect.getdoc(BENCHMARKS[name]) or ""
            rows = table(found[name]["rows"])
            sections.append(f"## {name}\n\n{about.splitlines()[0]}\n\n{rows}\n\n{facts}")
    return "\n\n".join(sections) + "\n"


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown."""
    columns = {
        "case": [row["what"] for row in rows],
        "ours": [_duration(row["ours_s"]) for row in rows],
        "peer": [f"{row['beside']}: {_beside(row)}" for row in rows],
        "ratio": [_ratio(row, "{ratio:.2f}") for row in rows],
        "range": [_ratio(row, "{least:.2f} – {most:.2f}") for row in rows],
        "rounds": [row["rounds"] for row in rows],
        "goal": [row["asked"] for row in rows],
    }
    text: str = pd.DataFrame(columns).to_markdown(index=False, disable_numparse=True)
    return text


def _beside(row: dict[str, Any]) -> str:
    return (
        "not installed (`make bench-peers`)" if row["ratio"] is None else _duration(row["beside_s"])
    )


def _ratio(row: dict[str, Any], figures: str) -> str:
    return "–" if row["ratio"] is None else figures.format_map(row)


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _where(here: dict[str, Any]) -> str:
    packages = ("torch", "torchdiffeq", "numba", "ray", "mlflow")
    installed = {name: importlib.metadata.version(name) for name in packages} | process.versions()
    versions = ", ".join(f"{name} {version}" for name, version in installed.items())
    cores = f"{cpu_count()} cores, {torch.get_num_threads()} threads"
    return f"{cores}; Python {here['python']}, {versions}"


def _file_name(hardware: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", hardware.lower()).strip("-")
