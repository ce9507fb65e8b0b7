"""The library that draws the charts of report.html: Vega-Lite, as vl-convert bundles it."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from nodebench.files import write

VEGA_LITE = "6.4"
"""The version for which the charts' specifications are written."""

BUNDLE = f"""
import sys, vl_convert
sys.stdout.buffer.write(vl_convert.javascript_bundle(vl_version={VEGA_LITE!r}).encode())
"""


@cache
def drawing_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, which defines `vegaEmbed`.

    A separate process builds it: vl-convert runs V8, which ends its process if the address space
    is limited. That takes two seconds, so the script is kept in the user's cache.

    Raises:
        RuntimeError: if it cannot be built.
    """
    version = importlib.metadata.version("vl-convert-python")
    kept = _cache_folder() / f"vega-lite-{VEGA_LITE}-of-vl-convert-{version}.js"
    with suppress(OSError, UnicodeDecodeError):
        return kept.read_text(encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", BUNDLE], capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"vl-convert {version} gave no bundle (status {done.returncode})")
    library = done.stdout.decode()
    with suppress(OSError):  # no home, or a full disk: it is built again the next time
        write(kept, library)
    return library


def _cache_folder() -> Path:
    """The folder of nodebench in the user's cache."""
    named = os.environ.get("XDG_CACHE_HOME", "").strip()
    home = os.environ.get("HOME", "").strip() or os.devnull  # in which no folder can be created
    return (Path(named) if named else Path(home) / ".cache") / "nodebench"
