"""The commands for sweep files and for archives of their results."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nodebench import api
from nodebench.cli.app import app
from nodebench.cli.manage import size_text
from nodebench.cli.options import AsJson, ReplaceOther, Source, grouped, sweep_names
from nodebench.cli.stream import say
from nodebench.cli.text import first_sentence
from nodebench.errors import counted
from nodebench.planning import lookup
from nodebench.planning.launches import Imported
from nodebench.planning.lookup import Listed


@app.command()
def sweeps(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Print this sweep's file instead.", autocompletion=sweep_names
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the sweeps that can be run by name: nodebench's own and those in sweeps/.

    S1 to S4 are the reproduced studies, which docs/studies.md lists.
    """
    if name is not None:
        print(lookup.sweep_path(name).read_text(encoding="utf-8"), end="")
    elif as_json:
        print(sweeps_json(lookup.list_sweeps()))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        say(sweeps_text(lookup.list_sweeps(), width))


@app.command()
def init(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="The file to write. An existing file is not overwritten."
        ),
    ] = Path("first-sweep.yaml"),
) -> None:
    """Write a commented starter sweep that trains for about a minute."""
    path = lookup.write_starter(file)
    say(f"wrote `{path}`. Next: `nodebench plan {path}`, then `nodebench run {path}`")


@app.command("export")
@grouped
def export_sweep(
    source: Source,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Output file.",
            show_default="<sweep>.nodebench.zip",
        ),
    ] = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="Include the networks' last checkpoints.")
    ] = False,
) -> None:
    """Write a sweep's results to one file, for `nodebench import` on another machine.

    It holds the sweep file and, for each trial with a result, the settings, history, evaluations,
    timings, result and environment (host name, hardware, versions), but no logs.
    """
    sweep = source.load()
    file, ids = api.export_archive(sweep, out, weights=weights)
    left = len(sweep.trials) - len(ids)
    rest = f"; {left} without a result or still running were left out" if left else ""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    size = size_text(file.stat().st_size)
    say(f"{file}: {counted(len(ids), 'trial')} of {sweep.name}, {size}{rest}")
    say(f"sha256 {digest}")


@app.command("import")
def import_sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file from `nodebench export`.")],
    replace: ReplaceOther = False,
) -> None:
    """Verify an exported sweep's checksums and copy it into the store.

    If the store already has a trial, the more advanced copy wins. If both have finished, the local
    one is kept, and reports compare the two.
    """
    say(imported_text(api.import_archive(file, replace_other=replace)))


def imported_text(found: Imported) -> str:
    """The result of an import: the counts, and what to do next."""
    merged, name = found.merged, found.sweep.name
    counts: dict[str, int] = {
        "new": len(merged.copied),
        "more advanced there": len(merged.replaced),
        "with more evaluation points there": len(merged.extended),
        "already here": len(merged.kept),
        "finished here with other numbers, which reports compare": len(merged.conflicts),
        "running, left alone": len(merged.running),
    }
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    lines = [f"{name}, {counted(sum(counts.values()), 'trial')}: {told}"]
    if not found.is_sweep_kept:
        lines.append(
            f"another sweep is called `{name}` here, and stays; `import --replace` takes the file's"
        )
    return "\n".join([*lines, f"Next: `nodebench report {name}`"])


def sweeps_text(found: Sequence[Listed], width: int | None) -> str:
    """A line per sweep: its name and the first sentence about it; wrapped to a terminal's width."""
    longest = max((len(each.name) for each in found), default=0)
    indent = " " * (longest + 2)
    lines: list[str] = []
    for each in found:
        line = f"{each.name:<{longest}}  {_described(each)}"
        wrapped = textwrap.wrap(line, max(width, 40), subsequent_indent=indent) if width else [line]
        lines += wrapped
    return "\n".join(lines)


def _described(sweep: Listed) -> str:
    if sweep.problem is not None:
        return f"cannot be read: {sweep.problem}"
    smaller = ", ".join(size for size in sweep.sizes if size != "full")
    sizes = f" (--size {smaller})" if smaller else ""
    local = "" if sweep.is_shipped else f" [{sweep.file}]"
    return f"{first_sentence(sweep.about)}{sizes}{local}".strip()


def sweeps_json(found: Sequence[Listed]) -> str:
    """The sweeps as JSON for scripts."""
    rows = [
        {
            "name": each.name,
            "about": each.about,
            "file": str(each.file),
            "sizes": list(each.sizes),
            "shipped": each.is_shipped,
            "problem": each.problem,
        }
        for each in found
    ]
    return json.dumps({"sweeps": rows})
